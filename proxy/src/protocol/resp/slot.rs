//! Names that share a slot of a Redis Cluster: what the proxy asks beside a sharded channel has to be where the channel is.
//!
//! Source: <https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#key-distribution-model>.

/// Bytes at the end of a name that put it into a slot.
pub const FILLER_BYTES: usize = 2;

/// The polynomial of CRC-16/XMODEM.
const POLYNOMIAL: u16 = 0x1021;
/// Bits of the CRC that are the slot.
const SLOT_BITS: u32 = 14;
const SLOT_MASK: u16 = (1 << SLOT_BITS) - 1;

/// The slot of a key: of what is between the first brace and the next one that closes, if there is something, else of all of it.
pub fn of(key: &[u8]) -> u16 {
    let tag = key.iter().position(|&byte| byte == b'{').and_then(|start| {
        let rest = &key[start + 1..];
        rest.split(|&byte| byte == b'}').next().filter(|tag| !tag.is_empty() && tag.len() < rest.len())
    });
    crc(tag.unwrap_or(key)) & SLOT_MASK
}

/// A name in this slot.
pub fn name_in(slot: u16) -> [u8; FILLER_BYTES] {
    end(crc(&[]), slot)
}

/// What `name`, which begins with the channel, has to end with to have its slot.
///
/// Where the channel has a hash tag that is the name's as well, whatever follows. Otherwise all of the name is hashed, as long as nothing in the
/// end makes a tag of it, and a CRC can be given any value by its last two bytes.
pub fn filler(channel: &[u8], name: &[u8]) -> [u8; FILLER_BYTES] {
    end(crc(name), crc(channel) & SLOT_MASK)
}

/// Two bytes behind which the CRC that is `state` before them is that of the slot. They are no braces.
fn end(state: u16, slot: u16) -> [u8; FILLER_BYTES] {
    let mut candidates = (0..1 << (u16::BITS - SLOT_BITS)).map(|upper: u16| {
        let wanted = slot | (upper << SLOT_BITS);
        (state ^ before_two_bytes(wanted)).to_be_bytes()
    });
    // Each of the two bytes rules out one candidate of four at most.
    candidates.find(|bytes| !bytes.iter().any(|byte| b"{}".contains(byte))).unwrap_or_default()
}

/// What each byte makes of a state that is zero.
const STEPS: [u16; 256] = {
    let mut steps = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut state = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            state = shift(state);
            bit += 1;
        }
        steps[byte] = state;
        byte += 1;
    }
    steps
};

fn crc(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |state: u16, &byte| (state << 8) ^ STEPS[usize::from((state >> 8) as u8 ^ byte)])
}

const fn shift(state: u16) -> u16 {
    (state << 1) ^ if state & 0x8000 > 0 { POLYNOMIAL } else { 0 }
}

/// What two bytes of zero make this of.
fn before_two_bytes(state: u16) -> u16 {
    let back = |state: u16| if state & 1 > 0 { ((state ^ POLYNOMIAL) >> 1) | 0x8000 } else { state >> 1 };
    (0..16).fold(state, |state, _| back(state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_crc_of_a_cluster() {
        assert_eq!(crc(b"123456789"), 0x31c3);
        assert_eq!(of(b"foo"), 12182);
        assert_eq!(of(b"{user1000}.following"), of(b"user1000"));
        for state in 0..=u16::MAX {
            assert_eq!((0..16).fold(before_two_bytes(state), |state, _| shift(state)), state);
        }
    }

    #[test]
    fn every_slot_has_a_name() {
        assert!((0..=SLOT_MASK).all(|slot| of(&name_in(slot)) == slot));
    }

    #[test]
    fn names_have_the_slot_of_their_channel() {
        let mut channels: Vec<String> = (0..5000).map(|number| format!("channel-{number}")).collect();
        channels.extend(
            ["", "{", "}", "{}", "a{}b", "a}b", "a{b", "{a}b", "a{b}c}", "x{}{y}"].map(str::to_owned),
        );
        for channel in channels {
            for letter in "abt".chars() {
                let mut name = format!("{channel}\0memstore\0{letter}").into_bytes();
                let filler = filler(channel.as_bytes(), &name);
                name.extend(filler);
                assert_eq!(of(&name), of(channel.as_bytes()), "{channel:?}");
            }
        }
    }
}
