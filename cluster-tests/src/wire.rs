//! Kafka's protocol by hand: what a client library would not send.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use callboard_common::kafka::header::RequestHeader;
use callboard_common::kafka::{ApiKey, Decoder, Encoder, Message};

/// Nothing a node answers takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection to the Kafka door.
#[derive(Debug)]
pub struct Raw {
    stream: TcpStream,
    next: i32,
}

impl Raw {
    /// Connects.
    ///
    /// # Panics
    ///
    /// Panics if the node does not accept.
    #[must_use]
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("the node accepts");
        stream
            .set_read_timeout(Some(PATIENCE))
            .expect("a timeout can be set");
        Self { stream, next: 0 }
    }

    /// Sends bytes as they are; the node may have closed the connection already.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a body with a right header and length in front.
    ///
    /// # Errors
    ///
    /// What the system says.
    pub fn send_body(&mut self, api_key: i16, api_version: i16, body: &[u8]) -> io::Result<()> {
        self.next += 1;
        let header = RequestHeader {
            api_key,
            api_version,
            correlation_id: self.next,
            client_id: Some("raw".into()),
        };
        let mut encoder = Encoder::new();
        header.encode(&mut encoder).map_err(io::Error::other)?;
        let header = encoder.into_bytes();
        let length = (header.len() + body.len()) as i32;
        self.send(&[&length.to_be_bytes(), &header[..], body].concat())
    }

    /// Sends as much as the node takes in this time.
    ///
    /// # Panics
    ///
    /// Panics if the socket has no timeouts.
    pub fn send_some(&mut self, bytes: &[u8], patience: Duration) {
        let timeout = self.stream.set_write_timeout(Some(patience));
        timeout.expect("a timeout can be set");
        let _sent = self.stream.write_all(bytes);
    }

    /// The same connection, to read from another thread.
    ///
    /// # Panics
    ///
    /// Panics if there are too many open files.
    #[must_use]
    pub fn split(&self) -> Self {
        let stream = self.stream.try_clone().expect("a file number");
        Self { stream, next: 0 }
    }

    /// Reads one byte.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` if the node closed the connection.
    pub fn byte(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.stream.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    /// Reads one answer without its length.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` if the node closed the connection.
    pub fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let mut answer = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut answer)?;
        Ok(answer)
    }

    /// Whether the node closes the connection without another answer.
    #[must_use]
    pub fn is_closed(&mut self) -> bool {
        let mut byte = [0];
        match self.stream.read(&mut byte) {
            Ok(read) => read == 0,
            Err(error) => matches!(
                error.kind(),
                io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
            ),
        }
    }

    /// Asks and reads the answer.
    ///
    /// # Panics
    ///
    /// Panics if the node does not answer with a message of this version.
    pub fn ask<Q: Message, A: Message>(&mut self, request: &Q, version: i16) -> A {
        let body = request.to_bytes(version).expect("it fits");
        self.send_body(Q::KEY, version, &body).expect("sent");
        self.answer(Q::KEY, version)
    }

    /// Reads the answer of a request that was sent.
    ///
    /// # Panics
    ///
    /// Panics if the node does not answer with a message of this version.
    pub fn answer<A: Message>(&mut self, api_key: i16, version: i16) -> A {
        let answer = self.read().expect("answered");
        let mut decoder = Decoder::new(answer.into());
        let _correlation_id = decoder.i32().expect("a header");
        let key = ApiKey::from_number(api_key).expect("served");
        if key != ApiKey::ApiVersions && version >= key.flexible_from() {
            decoder.tagged_fields(|_, _| Ok(false)).expect("a header");
        }
        A::from_bytes(decoder.into_rest(), version).expect("a message of this version")
    }
}
