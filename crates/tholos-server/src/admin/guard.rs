//! Whom the interface serves: loopback only without a password (R28), and writes only from a page of its own or from none.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::{Admin, Failure, Json};

/// Protected mode, and the checks of writes.
pub(super) async fn guard(
    State(admin): State<Admin>,
    ConnectInfo(remote): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let refuse =
        |why: &'static str| (StatusCode::FORBIDDEN, Json(Failure { error: why.to_owned() })).into_response();
    if !admin.open && !remote.ip().to_canonical().is_loopback() {
        return refuse("this node is in protected mode: without requirepass it serves loopback only");
    }
    // A page that a name was rebound to this address for would otherwise be let in by the browser.
    if !admin.open && !names_loopback(request.headers()) {
        return refuse("the Host header names no loopback address");
    }
    if !request.method().is_safe() && !is_same_origin(request.headers()) {
        return refuse("this comes from a page of another origin");
    }
    next.run(request).await
}

/// Whether the Host header names this machine's loopback.
fn names_loopback(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else { return false };
    let name =
        host.rsplit_once(':').map_or(host, |(name, port)| if port.ends_with(']') { host } else { name });
    let name = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Whether a write comes from no page, or from one that this interface served.
fn is_same_origin(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let (Ok(origin), Some(Ok(host))) = (origin.to_str(), headers.get(header::HOST).map(|host| host.to_str()))
    else {
        return false;
    };
    origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")) == Some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(rows: &[(&'static str, &str)]) -> HeaderMap {
        rows.iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect::<Vec<_>>()
            .into_iter()
            .collect::<HeaderMap>()
    }

    #[test]
    fn only_loopback_names_are_a_host() {
        for host in ["127.0.0.1:8080", "localhost:8080", "LOCALHOST", "[::1]:8080", "[::1]", "127.9.9.9"] {
            assert!(names_loopback(&headers(&[("host", host)])), "{host}");
        }
        for host in ["evil.example:8080", "10.0.0.1:8080", "localhost.evil.example", ""] {
            assert!(!names_loopback(&headers(&[("host", host)])), "{host}");
        }
        assert!(!names_loopback(&headers(&[])));
    }

    #[test]
    fn write_from_another_page_is_refused() {
        let same = headers(&[("host", "127.0.0.1:8080"), ("origin", "http://127.0.0.1:8080")]);
        assert!(is_same_origin(&same));
        assert!(
            is_same_origin(&headers(&[("host", "127.0.0.1:8080")])),
            "curl and the command line send none"
        );
        for origin in ["http://evil.example", "http://127.0.0.1:9090", "null"] {
            assert!(!is_same_origin(&headers(&[("host", "127.0.0.1:8080"), ("origin", origin)])), "{origin}");
        }
    }
}
