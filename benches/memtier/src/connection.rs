//! One client connection of the load generator: requests on their way out, and when each was due.
//! Which request comes next, and when, is the generator's business.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::time::Instant;

use mio::net::TcpStream;

use crate::process::loopback;
use crate::protocol::{Asked, Protocol, Reply};

/// A non-blocking connection.
pub struct Connection {
    /// The socket, for the poll to watch.
    pub stream: TcpStream,
    protocol: Protocol,
    /// Requests not yet written. Bounded by the generator's limit of requests in flight.
    output: Vec<u8>,
    /// How much of `output` has been written.
    written: usize,
    /// Bytes of replies that are not whole yet.
    input: Vec<u8>,
    /// When each request in flight was due and what it asked for, oldest first.
    pending: VecDeque<(Instant, Asked)>,
    /// Replies heard so far.
    answered: usize,
}

impl Connection {
    /// Connects to a port of loopback, waiting until it is done.
    pub fn connect(port: u16, protocol: Protocol) -> io::Result<Connection> {
        let stream = std::net::TcpStream::connect(loopback(port))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        Ok(Connection {
            stream: TcpStream::from_std(stream),
            protocol,
            output: Vec::new(),
            written: 0,
            input: Vec::new(),
            pending: VecDeque::new(),
            answered: 0,
        })
    }

    /// Adds a request. It leaves with the next `flush`.
    pub fn submit(&mut self, due: Instant, write: impl FnOnce(Protocol, &mut Vec<u8>) -> Asked) {
        let asked = write(self.protocol, &mut self.output);
        self.pending.push_back((due, asked));
    }

    /// Requests without a reply.
    pub fn in_flight(&self) -> usize {
        self.pending.len()
    }

    /// Replies it has heard since it was made.
    pub fn answered(&self) -> usize {
        self.answered
    }

    /// Writes as much as the socket takes.
    pub fn flush(&mut self) -> io::Result<()> {
        while self.written < self.output.len() {
            match self.stream.write(&self.output[self.written..]) {
                Ok(bytes) => self.written += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.output.clear();
        self.written = 0;
        Ok(())
    }

    /// Reads all there is. `heard` gets each reply, with the time its request was due.
    pub fn receive(&mut self, chunk: &mut [u8], heard: impl FnMut(Instant, Reply)) -> io::Result<()> {
        let before = self.pending.len();
        let outcome = self.read(chunk, heard);
        self.answered += before - self.pending.len();
        outcome
    }

    fn read(&mut self, chunk: &mut [u8], mut heard: impl FnMut(Instant, Reply)) -> io::Result<()> {
        loop {
            let bytes = match self.stream.read(chunk) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if self.input.is_empty() {
                let taken = take_replies(self.protocol, &mut self.pending, &chunk[..bytes], &mut heard)?;
                self.input.extend_from_slice(&chunk[taken..bytes]);
            } else {
                self.input.extend_from_slice(&chunk[..bytes]);
                let taken = take_replies(self.protocol, &mut self.pending, &self.input, &mut heard)?;
                self.input.drain(..taken);
            }
        }
    }
}

fn take_replies(
    protocol: Protocol,
    pending: &mut VecDeque<(Instant, Asked)>,
    input: &[u8],
    heard: &mut impl FnMut(Instant, Reply),
) -> io::Result<usize> {
    let mut taken = 0;
    while taken < input.len() {
        let &(due, asked) = pending.front().ok_or_else(|| io::Error::other("a reply nobody asked for"))?;
        let Some(reply) = protocol.reply(&input[taken..], asked).map_err(io::Error::other)? else { break };
        taken += reply.length;
        pending.pop_front();
        heard(due, reply);
    }
    Ok(taken)
}
