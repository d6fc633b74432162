//! A client of a real server.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

use super::{encoded, end, shown, text_end};

/// One connection, which sees the very bytes of replies.
pub struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Client {
    /// The one that speaks over this stream.
    pub fn over(stream: TcpStream) -> Self {
        Self { stream, unread: Vec::new() }
    }

    /// Sends a request, in words parted by blanks, and does not wait for its reply.
    pub fn begin(&mut self, line: &str) {
        self.send(&encoded(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>()));
    }

    /// Sends bytes as they are. A server may have closed the connection meanwhile, which the replies show.
    pub fn send(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    /// Sends a request and waits for its reply.
    pub fn ask(&mut self, words: &[&[u8]]) -> Vec<u8> {
        self.send(&encoded(words));
        self.reply()
    }

    /// [`Self::ask`] with words parted by blanks.
    pub fn say(&mut self, line: &str) -> String {
        let reply = self.ask(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>());
        shown(&reply)
    }

    /// The bytes of the next reply; fewer if the server closes the connection.
    pub fn reply(&mut self) -> Vec<u8> {
        loop {
            if let Some(end) = end(&self.unread, 0) {
                return self.unread.drain(..end).collect();
            }
            if !self.read() {
                return std::mem::take(&mut self.unread);
            }
        }
    }

    /// Sends a request of memcached's and waits for its reply, which is a line, or what ends with END.
    pub fn text(&mut self, request: &[u8]) -> String {
        self.send(request);
        self.text_reply()
    }

    /// The next reply of memcached's; fewer bytes if the server closes the connection.
    pub fn text_reply(&mut self) -> String {
        loop {
            if let Some(end) = text_end(&self.unread) {
                return shown(&self.unread.drain(..end).collect::<Vec<_>>());
            }
            if !self.read() {
                return shown(&std::mem::take(&mut self.unread));
            }
        }
    }

    /// [`Self::say`], with the reply's line ends as they are.
    pub fn tell(&mut self, line: &str) -> String {
        let reply = self.ask(&line.split(' ').map(str::as_bytes).collect::<Vec<_>>());
        String::from_utf8_lossy(&reply).into_owned()
    }

    /// The same connection once more, for another thread.
    pub fn twin(&self) -> Client {
        Client::over(self.stream.try_clone().expect("one more descriptor"))
    }

    /// Sends bytes and then says that nothing more comes.
    pub fn finish_with(&mut self, bytes: &[u8]) {
        self.send(bytes);
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
    }

    /// The server's address.
    pub fn local(&self) -> std::net::SocketAddr {
        self.stream.local_addr().expect("a socket")
    }

    /// Where it is connected to.
    pub fn peer(&self) -> std::net::SocketAddr {
        self.stream.peer_addr().expect("connected")
    }

    /// The next so many bytes; fewer if the server closes the connection.
    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = std::mem::take(&mut self.unread);
        bytes.reserve(count);
        let mut room = vec![0; 1 << 20];
        while bytes.len() < count {
            match self.stream.read(&mut room) {
                Ok(0) => break,
                Ok(length) => bytes.extend_from_slice(&room[..length]),
                Err(error) => panic!("{} of {count} bytes: {error}", bytes.len()),
            }
        }
        self.unread = bytes.split_off(bytes.len().min(count));
        bytes
    }

    /// All that comes until the server closes the connection, after our side has said that it is done.
    pub fn rest(&mut self) -> Vec<u8> {
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
        self.until_closed()
    }

    /// All that comes until the server closes the connection.
    pub fn until_closed(&mut self) -> Vec<u8> {
        while self.read() {}
        std::mem::take(&mut self.unread)
    }

    /// Whether the server has hung up, and nothing else has come.
    pub fn is_over(&mut self) -> bool {
        self.stream.set_nonblocking(true).expect("a socket");
        let peeked = self.stream.peek(&mut [0]);
        self.stream.set_nonblocking(false).expect("a socket");
        matches!(peeked, Ok(0)) || peeked.is_err_and(|error| error.kind() != ErrorKind::WouldBlock)
    }

    fn read(&mut self) -> bool {
        let mut room = [0; 16384];
        match self.stream.read(&mut room) {
            Ok(length) => {
                self.unread.extend_from_slice(&room[..length]);
                length > 0
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            // The process was stopped for a moment: a read with a time of its own is not gone on with then.
            Err(error) if error.kind() == ErrorKind::Interrupted => true,
            Err(error) => panic!("no reply: {error}; so far {:?}", shown(&self.unread)),
        }
    }
}
