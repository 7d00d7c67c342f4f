//! Put and linearizable Range on etcd: gRPC over HTTP/2, with as little between as possible.
//!
//! Client and servers share the machine, so a heavy client would make etcd look slow. The two messages are written by
//! hand from `rpc.proto` of etcd 3.5, and of an answer only its status and its length are looked at.

use bytes::{BufMut as _, Bytes, BytesMut};
use h2::client::SendRequest;
use http::{HeaderMap, Method, Request, Uri, Version};
use tokio::net::TcpStream;

/// Requests at the same time on one channel, at most.
pub(crate) const CLIENTS_PER_CHANNEL: usize = 16;
/// Tags of the bytes fields 1 and 2.
const TAGS: [u8; 2] = [0x0a, 0x12];
/// Longest answer to a Range that found nothing: a header of four integers.
const HEADER_BYTES_MAX: usize = 64;

/// A channel: one HTTP/2 connection, shared by some clients.
#[derive(Clone)]
pub(crate) struct Etcd {
    requests: SendRequest<Bytes>,
    put: Uri,
    range: Uri,
}

impl Etcd {
    /// Must be called within a runtime, which then runs the connection.
    pub(crate) async fn open(address: &str) -> Result<Self, String> {
        let stream = TcpStream::connect(address).await.map_err(|error| format!("{address}: {error}"))?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let (requests, connection) = h2::client::Builder::new()
            .initial_window_size(1 << 20)
            .initial_connection_window_size(1 << 24)
            .handshake(stream)
            .await
            .map_err(|error| format!("{address}: {error}"))?;
        tokio::spawn(async move {
            // Its requests see the same error.
            let _gone = connection.await;
        });
        let uri = |method: &str| {
            let text = format!("http://{address}/etcdserverpb.KV/{method}");
            text.parse::<Uri>().map_err(|error| error.to_string())
        };
        Ok(Self { requests, put: uri("Put")?, range: uri("Range")? })
    }

    pub(crate) async fn put(&self, key: &[u8], value: &[u8]) -> Result<(), String> {
        self.call(&self.put, message(&[key, value])).await.map(|_length| ())
    }

    /// False if the key is not there. Not serializable, so linearizable: `serializable` is false unless said.
    pub(crate) async fn get(&self, key: &[u8]) -> Result<bool, String> {
        Ok(self.call(&self.range, message(&[key])).await? > HEADER_BYTES_MAX)
    }

    /// Sends a message and returns the length of its answer.
    async fn call(&self, uri: &Uri, message: Bytes) -> Result<usize, String> {
        let text = |error: h2::Error| error.to_string();
        let mut requests = self.requests.clone().ready().await.map_err(text)?;
        let request = Request::builder()
            .method(Method::POST)
            .version(Version::HTTP_2)
            .uri(uri.clone())
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .map_err(|error| error.to_string())?;
        let (response, mut stream) = requests.send_request(request, false).map_err(text)?;
        stream.send_data(message, true).map_err(text)?;
        let (head, mut body) = response.await.map_err(text)?.into_parts();
        let mut length = 0;
        while let Some(chunk) = body.data().await {
            let chunk = chunk.map_err(text)?;
            length += chunk.len();
            body.flow_control().release_capacity(chunk.len()).map_err(text)?;
        }
        let trailers = body.trailers().await.map_err(text)?.unwrap_or(head.headers);
        check_status(&trailers)?;
        Ok(length)
    }
}

fn check_status(trailers: &HeaderMap) -> Result<(), String> {
    let field = |name| trailers.get(name).and_then(|value| value.to_str().ok());
    match field("grpc-status") {
        Some("0") => Ok(()),
        status => Err(format!("{}: {}", status.unwrap_or("no status"), field("grpc-message").unwrap_or(""))),
    }
}

/// A gRPC frame around a message whose fields are byte strings: a zero for "not compressed", the length, the message.
fn message(fields: &[&[u8]]) -> Bytes {
    let mut out = BytesMut::with_capacity(32 + fields.iter().map(|field| field.len()).sum::<usize>());
    out.put_bytes(0, 5);
    for (tag, field) in TAGS.iter().zip(fields) {
        out.put_u8(*tag);
        let mut length = field.len();
        while length >= 0x80 {
            out.put_u8(length as u8 | 0x80);
            length >>= 7;
        }
        out.put_u8(length as u8);
        out.put_slice(field);
    }
    let length = u32::try_from(out.len() - 5).expect("a value is far below 4 GiB");
    out[1..5].copy_from_slice(&length.to_be_bytes());
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_put_is_framed_as_the_proto_says() {
        let value = [b'v'; 200];
        let frame = message(&[b"k", &value]);
        let expected = [&[0, 0, 0, 0, 206, 0x0a, 1, b'k', 0x12, 0xc8, 0x01][..], &value].concat();
        assert_eq!(frame, expected);
    }
}
