//! TLS between the bytes of a connection and those that the kernel is given, by rustls.
//!
//! A session is handed to a worker once its handshake is over ([`super::handshakes`]): here are only its records. What is
//! queued in a pass is sealed together, so that small replies share records of up to 16 KiB. rustls is shown whole records
//! only: the part of one that has not come to its end is kept here, where it can be counted. What the library keeps between two reads
//! is a handshake message that is not whole, and is counted and limited as what says nothing. Source: RFC 8446, section 5.1.

use std::cell::RefCell;
use std::io::{self, BufRead as _, ErrorKind, IoSlice, Write as _};
use std::sync::Arc;

use bytes::BytesMut;
use rustls::Connection;

use super::layer::Layer;
use super::plain::{Plain, Read, Written};
use crate::account::{Account, Aside, Share};
use crate::buffer::Output;

/// What one session costs beside what it holds: 5.2 KB on the heap of rustls when idle (6.4 KB after it was used), and itself.
const SESSION_BYTES: usize = 7 * 1024;
/// Bytes of a record before its content: type, version, length.
const HEADER: usize = 5;
/// Longest content of a record with what encryption adds. Source: RFC 8446, section 5.2 (TLS 1.2 allows more padding).
const CONTENT_MAX: usize = (1 << 14) + 2048;
/// Bytes that are read from the kernel at once: those of four records.
const READ_SIZE: usize = 4 * ((1 << 14) + 256);
/// Bytes that are sealed before those sealed earlier are written: four records.
const SEALED_MAX: usize = 4 << 14;
/// Vectors that are sealed together.
const VECTORS_MAX: usize = 64;
/// Bytes of records one after the other that say nothing to us (parts of a handshake, which rustls joins, and new keys): a peer that means
/// it needs few.
const SILENT_MAX: usize = 16 * 1024;
/// So much is read whole by whoever reads records in parts. Source: memcached's smallest buffer for requests, of any version.
const READ_WHOLE: usize = 1024;
/// A read of rustls' begins with so many bytes; after more it keeps a larger buffer until the next one.
const LIBRARY_READ: usize = 4096;

/// Why a client is not taken in, in words.
pub const CROWDED: &str = "TLS sessions hold half of memory_max";

thread_local! {
    /// What has come from the kernel, of the connection at hand. One for all of a thread, so that idle ones have none.
    static COME: RefCell<Vec<u8>> = RefCell::new(vec![0; READ_SIZE]);
}

/// A TLS session.
pub struct Tls {
    connection: Connection,
    /// The beginning of what has come and was not shown to rustls: at most one record that is not whole, but while the session
    /// is handed over.
    come: Vec<u8>,
    /// Bytes that are sealed and not written.
    held: usize,
    has_finished: bool,
    /// Bytes of the last records, one after the other, that said nothing to us.
    silent: usize,
    /// As of [`Self::ending_alone`]; then whether a part of something was sealed, and its end was not.
    ends_alone: Option<bool>,
    /// The peer will say nothing more.
    has_ended: bool,
    /// What it holds, where that counts.
    aside: Option<Aside>,
}

impl Tls {
    /// A session whose handshake has not begun. What it costs counts in the account, if there is one.
    pub fn new(connection: Connection, account: Option<&Arc<Account>>) -> Self {
        let mut session = Self {
            connection,
            come: Vec::new(),
            held: 0,
            has_finished: false,
            silent: 0,
            ends_alone: None,
            has_ended: false,
            aside: account.map(Aside::new),
        };
        session.connection.set_buffer_limit(Some(2 * SEALED_MAX));
        session.count();
        session
    }

    /// The last byte of what is written has a record of its own, but where all of that is small: for a peer that reads a record in
    /// parts, and looks for the rest of one only when something more has come. One byte is never a part, and as long as it
    /// was not read there is something more.
    #[must_use]
    pub fn ending_alone(mut self) -> Self {
        self.ends_alone = Some(false);
        self
    }

    /// How many of so many bytes to seal next, if it may be `most`.
    fn share(&self, queued: usize, most: usize) -> usize {
        let take = most.min(SEALED_MAX);
        let is_alone = match self.ends_alone {
            None => false,
            // Small ones that begin as something new does are read whole.
            Some(has_begun) => queued > 1 && (has_begun || queued > READ_WHOLE),
        };
        if is_alone { take.min(queued - 1) } else { take }
    }

    /// Whether the handshake is not over.
    pub fn is_handshaking(&self) -> bool {
        self.connection.is_handshaking()
    }

    /// Goes on with the handshake by what has come.
    ///
    /// # Errors
    /// The peer has closed, or what it says is no good handshake, or there are too many already that say something, in words.
    pub fn shake(&mut self, below: &mut Plain) -> io::Result<Read> {
        let read = self.pull(below, LIBRARY_READ, None)?;
        if self.is_handshaking() && self.aside.as_ref().is_some_and(|aside| aside.account().is_crowded()) {
            return Err(io::Error::other(CROWDED));
        }
        if read == Read::Ended && self.is_handshaking() {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(read)
    }

    /// Reads once from below, and shows rustls what records that makes. What they say goes to `opened`; during the handshake
    /// nothing is said.
    fn pull(&mut self, below: &mut Plain, most: usize, opened: Option<&mut BytesMut>) -> io::Result<Read> {
        let read: io::Result<Read> = COME.with_borrow_mut(|room| {
            let most = most.clamp(1, room.len());
            let (read, count) = below.read_into(&mut room[..most])?;
            if self.come.is_empty() {
                let shown = self.show(&room[..count], opened)?;
                self.come.extend_from_slice(&room[shown..count]);
            } else if count > 0 {
                self.come.extend_from_slice(&room[..count]);
                self.show_kept(opened)?;
            }
            Ok(read)
        });
        self.count();
        // It may have to answer: an alert says what was wrong with what has come.
        let flushed = self.flush(below);
        let read = read?;
        flushed.map(|()| read)
    }

    /// Shows rustls what was kept, as far as it is whole.
    fn show_kept(&mut self, opened: Option<&mut BytesMut>) -> io::Result<()> {
        let come = std::mem::take(&mut self.come);
        let shown = self.show(&come, opened)?;
        if shown < come.len() {
            self.come = if shown == 0 { come } else { come[shown..].to_vec() };
        }
        Ok(())
    }

    /// Shows rustls the whole records at the beginning of these bytes, during the handshake as long as it is not over; returns
    /// their length.
    fn show(&mut self, bytes: &[u8], mut opened: Option<&mut BytesMut>) -> io::Result<usize> {
        let was_handshaking = self.connection.is_handshaking();
        let (mut shown, mut longest) = (0, 0);
        // What comes behind its last word is not looked at.
        while !self.has_ended
            && let Some(length) = record(&bytes[shown..])?
        {
            if bytes.len() - shown < length {
                break;
            }
            let mut rest = &bytes[shown..shown + length];
            while !rest.is_empty() {
                if self.connection.read_tls(&mut rest)? == 0 {
                    // It has said its last word.
                    break;
                }
                let state = self.connection.process_new_packets().map_err(io::Error::other)?;
                self.has_ended |= state.peer_has_closed();
                self.silent = if state.plaintext_bytes_to_read() > 0 { 0 } else { self.silent + length };
                if let Some(opened) = opened.as_deref_mut() {
                    self.hand_on(opened)?;
                }
            }
            shown += length;
            longest = longest.max(length);
            if was_handshaking && !self.connection.is_handshaking() {
                self.silent = 0;
                break;
            }
            if !was_handshaking && self.silent > SILENT_MAX {
                let words = "the peer has sent too many records without data";
                return Err(io::Error::new(ErrorKind::InvalidData, words));
            }
        }
        if longest > LIBRARY_READ {
            // Its buffer shrinks as it reads.
            let _ = self.connection.read_tls(&mut Nothing);
        }
        Ok(if self.has_ended { bytes.len() } else { shown })
    }

    /// Hands on what was opened, before the next record is shown: rustls keeps no more than one.
    fn hand_on(&mut self, scratch: &mut BytesMut) -> io::Result<()> {
        let mut reader = self.connection.reader();
        loop {
            let opened = match reader.fill_buf() {
                Ok([]) => return Ok(()),
                Ok(opened) => opened,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let length = opened.len();
            scratch.extend_from_slice(opened);
            reader.consume(length);
        }
    }

    /// Writes what is sealed.
    pub(super) fn flush(&mut self, below: &mut Plain) -> io::Result<()> {
        while self.connection.wants_write() {
            let mut sink = Sink { below, sealed: 0, written: 0 };
            let result = self.connection.write_tls(&mut sink);
            self.held = sink.sealed - sink.written;
            match result {
                Ok(_) if self.held > 0 => break,
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        self.count();
        Ok(())
    }

    /// Counts what it holds in the account. What is sealed counts with the output.
    fn count(&mut self) {
        if let Some(aside) = &mut self.aside {
            aside.hold(SESSION_BYTES + self.come.capacity() + self.silent);
        }
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let version = self.connection.protocol_version();
        formatter
            .debug_struct("Tls")
            .field("version", &version)
            .field("held", &self.held)
            .finish_non_exhaustive()
    }
}

impl Layer for Tls {
    fn read(&mut self, below: &mut Plain, scratch: &mut BytesMut, most: usize) -> io::Result<Read> {
        let before = scratch.len();
        // What came together with the last words of the handshake.
        if !self.come.is_empty() && record(&self.come)?.is_some_and(|length| length <= self.come.len()) {
            self.show_kept(Some(scratch))?;
            self.count();
            return Ok(Read::Full);
        }
        if self.has_ended {
            return Ok(Read::Ended);
        }
        let mut read = self.pull(below, most, Some(scratch))?;
        if read == Read::Drained && scratch.len() == before && !self.has_ended {
            // Nothing but a part of a record, and the end may have come with it: nobody tells of that again.
            read = self.pull(below, most, Some(scratch))?;
        }
        let is_none = scratch.len() == before;
        Ok(match read {
            Read::Ended if !is_none => Read::Full,
            Read::Drained if self.has_ended => {
                if is_none {
                    Read::Ended
                } else {
                    Read::Full
                }
            }
            // Nothing but a part of a record, or something between the two libraries.
            Read::Drained if is_none => Read::Nothing,
            read => read,
        })
    }

    fn write(&mut self, below: &mut Plain, output: &mut Output, most: usize) -> io::Result<Written> {
        let mut left = most;
        loop {
            self.flush(below)?;
            if self.held > 0 {
                return Ok(Written::Pending);
            }
            if output.is_empty() {
                self.ends_alone = self.ends_alone.map(|_| false);
                return Ok(Written::All);
            }
            if left == 0 {
                return Ok(Written::Paused);
            }
            let take = self.share(output.len(), left);
            let sealed = match output.whole() {
                Some(whole) => self.connection.writer().write(&whole[..whole.len().min(take)])?,
                None => {
                    let mut vectors = [IoSlice::new(&[]); VECTORS_MAX];
                    let used = output.vectors(&mut vectors, take);
                    self.connection.writer().write_vectored(&vectors[..used])?
                }
            };
            if sealed == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
            if !self.connection.wants_write() {
                // Its keys are used up, and it takes no more (TLS 1.2).
                return Err(ErrorKind::ConnectionAborted.into());
            }
            output.advance(sealed);
            left -= sealed.min(left);
            self.ends_alone = self.ends_alone.map(|_| !output.is_empty());
        }
    }

    fn finish(&mut self, below: &mut Plain) -> io::Result<()> {
        if !std::mem::replace(&mut self.has_finished, true) {
            self.connection.send_close_notify();
        }
        self.flush(below)
    }

    fn held(&self) -> usize {
        self.held
    }

    fn unread(&self) -> usize {
        self.come.len()
    }

    fn memory(&self) -> usize {
        self.aside.as_ref().map_or(0, Aside::held)
    }

    fn join(&mut self, share: &Share) {
        if let Some(aside) = &mut self.aside {
            aside.join(share);
        }
    }
}

/// The length of the record that these bytes begin with, if that can be told.
fn record(bytes: &[u8]) -> io::Result<Option<usize>> {
    if bytes.first().is_some_and(|kind| !(20..=24).contains(kind)) {
        return Err(not_tls(bytes));
    }
    let [_, major, _, high, low, ..] = *bytes else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if major != 3 || length > CONTENT_MAX {
        return Err(not_tls(bytes));
    }
    Ok(Some(HEADER + length))
}

/// The peer speaks something else.
fn not_tls(bytes: &[u8]) -> io::Error {
    let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(16)]).escape_debug().to_string();
    io::Error::new(ErrorKind::InvalidData, format!("the peer does not speak TLS; it has sent \"{shown}\""))
}

/// Has nothing to be read.
struct Nothing;

impl io::Read for Nothing {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(ErrorKind::WouldBlock.into())
    }
}

/// Where sealed records go. It counts what it is shown, which is all that there is.
struct Sink<'b> {
    below: &'b mut Plain,
    sealed: usize,
    written: usize,
}

impl io::Write for Sink<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, vectors: &[IoSlice<'_>]) -> io::Result<usize> {
        self.sealed = vectors.iter().map(|vector| vector.len()).sum();
        self.written = self.below.send_vectors(vectors)?;
        if self.written == 0 && self.sealed > 0 {
            return Err(ErrorKind::WouldBlock.into());
        }
        Ok(self.written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::os::unix::net::UnixStream;

    use proptest::prelude::*;
    use rustls::pki_types::{PrivateKeyDer, ServerName};
    use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection};

    use super::*;

    /// A client and a server that will agree.
    pub fn sessions() -> [Connection; 2] {
        let key = rcgen::KeyPair::generate().expect("a key");
        let wanted = rcgen::CertificateParams::new(vec!["shard".to_owned()]).expect("a name");
        let certificate = wanted.self_signed(&key).expect("a certificate").der().clone();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
            .expect("a pair");
        let mut roots = RootCertStore::empty();
        roots.add(certificate).expect("a certificate");
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("shard").expect("a name");
        let client = ClientConnection::new(Arc::new(client), name).expect("a session");
        let server = ServerConnection::new(Arc::new(server)).expect("a session");
        [client.into(), server.into()]
    }

    /// The two ends of a connection, before their handshake.
    fn ends(account: Option<&Arc<Account>>) -> [(Plain, Tls); 2] {
        let [client, server] = sessions();
        let (here, there) = UnixStream::pair().expect("descriptors");
        for end in [&here, &there] {
            end.set_nonblocking(true).expect("a socket");
            // The kernel takes little at a time.
            rustix::net::sockopt::set_socket_send_buffer_size(end, 8 * 1024).expect("a socket");
        }
        [(Plain::Unix(here), Tls::new(client, account)), (Plain::Unix(there), Tls::new(server, account))]
    }

    fn shake(ends: &mut [(Plain, Tls); 2]) {
        while ends.iter().any(|(_, session)| session.is_handshaking()) {
            for (below, session) in &mut *ends {
                session.flush(below).expect("there is room");
                if session.is_handshaking() {
                    session.shake(below).expect("they agree");
                }
            }
        }
    }

    #[test]
    fn a_session_is_in_the_account_as_long_as_it_is_there() {
        let account = Account::new(usize::MAX);
        let mut both = ends(Some(&account));
        shake(&mut both);
        assert!(account.held() >= 2 * SESSION_BYTES, "{}", account.held());
        // The beginning of a record that is long.
        let [(below, _), (other, session)] = &mut both;
        below.send(&[&[23, 3, 3, 0x40, 0][..], &[0; 3_000]].concat()).expect("there is room");
        let mut scratch = BytesMut::new();
        assert_eq!(session.read(other, &mut scratch, usize::MAX).expect("it is part of one"), Read::Nothing);
        assert!(session.unread() == 3_005 && account.held() >= 2 * SESSION_BYTES + 3_005);
        drop(both);
        assert_eq!(account.held(), 0);
    }

    /// The lengths of what is in these records of TLS 1.3.
    fn contents(mut bytes: &[u8]) -> Vec<usize> {
        let mut lengths = Vec::new();
        while let Some(length) = record(bytes).expect("records") {
            // The kind of what is in it, and the tag.
            lengths.push(length - HEADER - 1 - 16);
            bytes = &bytes[length..];
        }
        lengths
    }

    #[test]
    fn the_end_of_what_is_not_small_is_alone_where_that_is_wished_for() {
        for is_wished in [false, true] {
            let mut both = ends(None);
            shake(&mut both);
            let [(mut here, mut session), (mut there, _)] = both;
            if is_wished {
                session = session.ending_alone();
            }
            let mut room = vec![0; 1 << 20];
            let mut sent = |session: &mut Tls, here: &mut Plain, output: &mut Output, most: usize| {
                let written = session.write(here, output, most).expect("it is taken");
                assert_ne!(written, Written::Pending);
                let (_, count) = there.read_into(&mut room).expect("it is there");
                contents(&room[..count])
            };
            let mut output = Output::default();
            output.copy(&[b'x'; READ_WHOLE]);
            assert_eq!(sent(&mut session, &mut here, &mut output, usize::MAX), [READ_WHOLE]);
            output.copy(&[b'x'; 2_000]);
            let expected: &[usize] = if is_wished { &[1_999, 1] } else { &[2_000] };
            assert_eq!(sent(&mut session, &mut here, &mut output, usize::MAX), expected);
            // A part, and later the rest, which has something behind it by then.
            output.copy(&[b'x'; 300]);
            assert_eq!(sent(&mut session, &mut here, &mut output, 200), [200]);
            output.copy(b"get key\r\n");
            let expected: &[usize] = if is_wished { &[108, 1] } else { &[109] };
            assert_eq!(sent(&mut session, &mut here, &mut output, usize::MAX), expected);
            output.copy(b"get key\r\n");
            assert_eq!(sent(&mut session, &mut here, &mut output, usize::MAX), [9], "as before");
        }
    }

    #[test]
    fn what_is_no_record_ends_the_session() {
        for bytes in [
            &b"PING\r\n"[..],
            b"\x17\x03\x03\xff\xff",
            b"\x17\x04\x03\x00\x01",
            &[23, 3, 3, 0, 20, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20],
        ] {
            let mut both = ends(None);
            shake(&mut both);
            let [(below, _), (other, session)] = &mut both;
            below.send(bytes).expect("there is room");
            session
                .read(other, &mut BytesMut::new(), usize::MAX)
                .expect_err("it is not TLS, or not sealed by the peer");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        /// Whatever is queued, in whatever pieces, with whatever room, arrives as it was, and nothing is said to be sent
        /// that is held.
        #[test]
        fn bytes_arrive_as_they_were(
            pieces in prop::collection::vec((0_usize..70_000, any::<bool>()), 1..20),
            reads in prop::collection::vec(1_usize..80_000, 1..8),
            writes in prop::collection::vec(1_usize..100_000, 1..8),
            ends_alone in any::<bool>(),
        ) {
            let mut both = ends(None);
            shake(&mut both);
            let [(here, from), (there, to)] = &mut both;
            from.ends_alone = ends_alone.then_some(false);
            let (mut output, mut sent, mut come) = (Output::default(), Vec::new(), BytesMut::new());
            for (number, &(length, is_shared)) in pieces.iter().enumerate() {
                let piece: Vec<u8> = (0..length).map(|at| (at + number) as u8).collect();
                sent.extend_from_slice(&piece);
                if is_shared { output.share(piece.into()) } else { output.copy(&piece) }
            }
            let (mut reads, mut writes) = (reads.iter().cycle(), writes.iter().cycle());
            let mut layered = 0;
            while come.len() < sent.len() {
                let written = from.write(here, &mut output, *writes.next().expect("a cycle")).expect("it is taken");
                output.hold(from.held());
                prop_assert_eq!(written == Written::All, output.is_sent());
                to.read(there, &mut come, *reads.next().expect("a cycle")).expect("it is TLS");
                layered += 1;
                prop_assert!(layered < 1_000_000, "it stands still at {} of {}", come.len(), sent.len());
            }
            prop_assert_eq!(&come[..], &sent[..]);
            prop_assert!(output.is_sent() && to.unread() == 0);
            from.finish(here).expect("there is room");
            prop_assert_eq!(to.read(there, &mut come, usize::MAX).expect("the end is said"), Read::Ended);
        }
    }
}
