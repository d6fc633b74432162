//! Writes what the proxy itself says.

/// A line.
pub fn line(out: &mut Vec<u8>, text: &str) {
    out.extend(text.bytes().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }));
    out.extend_from_slice(b"\r\n");
}

/// `STAT name value`; a space in the name becomes an underscore.
pub fn stat(out: &mut Vec<u8>, name: &str, value: impl std::fmt::Display) {
    line(out, &format!("STAT {} {value}", name.replace(' ', "_")));
}

/// The reply where a shard's response cannot be one to its part of the request.
pub fn odd_part(out: &mut Vec<u8>, shard: &str) {
    line(out, &format!("SERVER_ERROR shard {shard}: unexpected response to a part of the request"));
}
