//! SET and WAIT on one Redis connection: the nearest that Redis has to a replicated write.

use tholos_resp::encode_command;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// One connection.
pub(crate) struct Redis {
    stream: TcpStream,
    output: Vec<u8>,
    input: Vec<u8>,
    /// The reply of a WAIT that found all replicas.
    all_replicas: Vec<u8>,
    replicas: String,
}

impl Redis {
    pub(crate) async fn open(address: &str, replicas: u32) -> Result<Self, String> {
        let stream = TcpStream::connect(address).await.map_err(|error| format!("{address}: {error}"))?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        Ok(Self {
            stream,
            output: Vec::with_capacity(4096),
            input: Vec::with_capacity(4096),
            all_replicas: format!("+OK\r\n:{replicas}\r\n").into_bytes(),
            replicas: replicas.to_string(),
        })
    }

    /// Both commands leave in one write, and both replies are awaited.
    pub(crate) async fn set_and_wait(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        self.output.clear();
        encode_command(&[b"SET", key, value], &mut self.output);
        encode_command(&[b"WAIT", self.replicas.as_bytes(), b"0"], &mut self.output);
        self.stream.write_all(&self.output).await.map_err(|error| error.to_string())?;
        self.input.clear();
        while self.input.iter().filter(|&&byte| byte == b'\n').count() < 2 {
            let read = self.stream.read_buf(&mut self.input).await.map_err(|error| error.to_string())?;
            if read == 0 {
                return Err("connection closed".to_owned());
            }
        }
        if self.input == self.all_replicas {
            Ok(())
        } else {
            Err(String::from_utf8_lossy(&self.input).replace("\r\n", " "))
        }
    }
}
