//! Whom the interface serves (`docs/decisions/0039-who-may-use-the-admin-port.md`): without a password loopback only (R28),
//! and with one whoever shows it; what comes from loopback may read without. Writes come only from a page of its own or from
//! none.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use tholos_node::same_secret;

use super::{Admin, Failure, Json};

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// From another machine, and there is no password.
    Protected,
    /// For a name that is not this machine's.
    StrangeHost,
    /// Of a page that is not this interface's.
    OtherPage,
    /// It shows no password.
    NoPassword,
    /// It shows a wrong one.
    WrongPassword,
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let error = match self {
            Refusal::Protected => {
                "this node is in protected mode: without requirepass it serves loopback only"
            }
            Refusal::StrangeHost => "the Host header names no loopback address",
            Refusal::OtherPage => "this comes from a page of another origin",
            Refusal::NoPassword => {
                "this needs the password of the node (requirepass), as does all that changes something or comes from another \
                 machine: send it with Authorization, as Bearer or as Basic with any user name"
            }
            Refusal::WrongPassword => "this is not the password of the node (requirepass)",
        };
        let told = Json(Failure { error: error.to_owned() });
        match self {
            Refusal::NoPassword | Refusal::WrongPassword => {
                let how = [(header::WWW_AUTHENTICATE, "Basic realm=\"tholos\"")];
                (StatusCode::UNAUTHORIZED, how, told).into_response()
            }
            _ => (StatusCode::FORBIDDEN, told).into_response(),
        }
    }
}

/// Lets a request pass, or says why not.
pub(super) async fn guard(
    State(admin): State<Admin>,
    ConnectInfo(remote): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    let (method, path) = (request.method(), request.uri().path());
    match check(remote.ip(), method, path, request.headers(), &admin.passwords()) {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

fn check(
    remote: IpAddr,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
    passwords: &[Bytes],
) -> Result<(), Refusal> {
    let is_loopback = remote.to_canonical().is_loopback();
    if passwords.is_empty() {
        if !is_loopback {
            return Err(Refusal::Protected);
        }
        // A page that a name was rebound to this address for would otherwise be let in by the browser.
        if !names_loopback(headers) {
            return Err(Refusal::StrangeHost);
        }
    }
    if !method.is_safe() && !is_same_origin(headers) {
        return Err(Refusal::OtherPage);
    }
    // What was sent to another name came by a proxy of this machine, or a page had it sent: that is nobody at home here.
    let is_free = method.is_safe() && (path == "/healthz" || (is_loopback && names_loopback(headers)));
    if passwords.is_empty() || is_free {
        return Ok(());
    }
    let shown = shown_password(headers).ok_or(Refusal::NoPassword)?;
    let mut is_right = false;
    for password in passwords {
        // All of them, so that the time tells nothing of which it was.
        is_right |= same_secret(password, &shown);
    }
    if is_right { Ok(()) } else { Err(Refusal::WrongPassword) }
}

/// The password that a request shows.
fn shown_password(headers: &HeaderMap) -> Option<Vec<u8>> {
    let shown = headers.get(header::AUTHORIZATION)?.as_bytes();
    let space = shown.iter().position(|byte| *byte == b' ')?;
    let (scheme, shown) = (&shown[..space], shown[space..].trim_ascii());
    if scheme.eq_ignore_ascii_case(b"bearer") {
        return Some(shown.to_vec());
    }
    if !scheme.eq_ignore_ascii_case(b"basic") {
        return None;
    }
    let pair = BASE64_STANDARD.decode(shown).ok()?;
    let colon = pair.iter().position(|byte| *byte == b':')?;
    Some(pair[colon + 1..].to_vec())
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

    const LOCAL: &str = "127.0.0.1:8080";

    /// What becomes of a request with this Host and Authorization.
    fn ask(remote: &str, request: &str, host: &str, shown: &str, passwords: &[&str]) -> Result<(), Refusal> {
        let (method, path) = request.split_once(' ').unwrap();
        let mut rows = vec![("host", host)];
        if !shown.is_empty() {
            rows.push(("authorization", shown));
        }
        let passwords: Vec<Bytes> = passwords.iter().map(|word| Bytes::from((*word).to_owned())).collect();
        check(remote.parse().unwrap(), &method.parse().unwrap(), path, &headers(&rows), &passwords)
    }

    #[test]
    fn without_a_password_loopback_may_do_all_and_nobody_else_anything() {
        for request in ["GET /healthz", "GET /v1/status", "POST /v1/jobs"] {
            assert_eq!(ask("127.0.0.1", request, LOCAL, "", &[]), Ok(()), "{request}");
            assert_eq!(ask("::ffff:127.0.0.1", request, "localhost", "Bearer x", &[]), Ok(()), "{request}");
            assert_eq!(ask("10.0.0.1", request, LOCAL, "", &[]), Err(Refusal::Protected), "{request}");
            assert_eq!(ask("10.0.0.1", request, LOCAL, "Bearer ", &[]), Err(Refusal::Protected), "{request}");
            assert_eq!(ask("::1", request, "evil.example", "", &[]), Err(Refusal::StrangeHost), "{request}");
        }
    }

    #[test]
    fn with_a_password_writes_show_it_and_so_does_all_from_elsewhere_but_health() {
        let (no, wrong) = (Err(Refusal::NoPassword), Err(Refusal::WrongPassword));
        let check = |remote: &str, request: &str, host: &str, free: Result<(), Refusal>| {
            let with = |shown: &str| ask(remote, request, host, shown, &["secret"]);
            assert_eq!(with(""), free, "{remote} {request} {host}");
            assert_eq!(with("Bearer secret"), Ok(()), "{remote} {request} {host}");
            let refused = if free.is_ok() { Ok(()) } else { wrong };
            for other in ["Bearer secre", "Bearer secret1", "Bearer ", "Basic OnNlY3Jl"] {
                assert_eq!(with(other), refused, "{remote} {request} {host} {other}");
            }
        };
        for method in ["GET", "HEAD"] {
            check("127.0.0.1", &format!("{method} /v1/status"), LOCAL, Ok(()));
            check("127.0.0.1", &format!("{method} /v1/status"), "public.example", no);
            check("10.0.0.1", &format!("{method} /v1/status"), LOCAL, no);
            check("10.0.0.1", &format!("{method} /metrics"), "10.0.0.2:8080", no);
            check("10.0.0.1", &format!("{method} /healthz"), "10.0.0.2:8080", Ok(()));
        }
        for method in ["POST", "PUT", "DELETE", "PATCH"] {
            for remote in ["127.0.0.1", "::1", "10.0.0.1"] {
                check(remote, &format!("{method} /v1/jobs"), LOCAL, no);
                check(remote, &format!("{method} /healthz"), LOCAL, no);
            }
        }
    }

    #[test]
    fn a_password_is_shown_as_bearer_or_with_any_user() {
        let shown = |text: &str| shown_password(&headers(&[("authorization", text)]));
        let is = |text: &str| Some(text.as_bytes().to_vec());
        assert_eq!(shown("Bearer secret"), is("secret"));
        assert_eq!(shown("bearer  two words"), is("two words"));
        for (pair, encoded) in [
            (":secret", "OnNlY3JldA=="),
            ("default:secret", "ZGVmYXVsdDpzZWNyZXQ="),
            ("prometheus:with:colons", "cHJvbWV0aGV1czp3aXRoOmNvbG9ucw=="),
            ("a:\u{fc}~?", "YTrDvH4/"),
        ] {
            let password = pair.split_once(':').unwrap().1;
            assert_eq!(shown(&format!("Basic {encoded}")), is(password), "{pair}");
        }
        for text in ["secret", "Digest secret", "Basic", "Basic c2VjcmV0", "Basic !!!!"] {
            assert_eq!(shown(text), None, "{text}");
        }
        assert_eq!(ask("10.0.0.1", "POST /v1/jobs", LOCAL, "Basic OnNlY3JldA==", &["a", "secret"]), Ok(()));
    }

    #[test]
    fn a_page_elsewhere_writes_nothing_with_a_password_that_the_browser_keeps() {
        let rows = [("host", LOCAL), ("origin", "http://evil.example"), ("authorization", "Bearer secret")];
        let passwords = [Bytes::from_static(b"secret")];
        let checked =
            check("127.0.0.1".parse().unwrap(), &Method::POST, "/v1/jobs", &headers(&rows), &passwords);
        assert_eq!(checked, Err(Refusal::OtherPage));
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
