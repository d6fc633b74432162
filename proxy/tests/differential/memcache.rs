//! Requests of memcached's text protocol, classic and meta, near every limit that a server has.

use super::super::servers::dice::Dice;
use super::super::servers::{Client, Server};
use super::super::{Dialect, Request};

/// The server, and whether it is the version whose words ours uses.
pub struct Memcached {
    is_ours: bool,
}

impl Memcached {
    pub fn new() -> Self {
        let version = Server::memcached(&[]).connect().text(b"version\r\n");
        Self { is_ours: version.starts_with("VERSION 1.6.18\\r") }
    }
}

/// Numbers as they are misspelt, and those at the ends of what fits.
const NUMBERS: [&str; 34] = [
    "0",
    "-1",
    "+1",
    "00",
    "01",
    "100000",
    "2592000",
    "2592001",
    "2147483644",
    "2147483645",
    "2147483646",
    "2147483647",
    "2147483648",
    "4294967294",
    "4294967295",
    "4294967296",
    "4294967297",
    "-2147483648",
    "-2147483649",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "99999999999999999999999999999999",
    "1x",
    "x",
    "0x10",
    "1.5",
    "-",
    "+",
    "--1",
    "1e3",
    "\u{663}",
];

/// What may do harm if it is taken for requests or for responses.
const VALUES: [&str; 10] = [
    "",
    "V",
    "1",
    "18446744073709551615",
    "mn\r\n",
    "get victim:1\r\n",
    "set victim:1 0 0 1\r\nX\r\n",
    "END\r\n",
    "VALUE victim:1 0 1\r\nX\r\nEND\r\n",
    "mg victim:1 v\r\nverbosity 1",
];

/// Flags that each meta command knows in every version.
const FLAGS: [(&str, &[&str]); 5] = [
    ("mg", &["b", "c", "f", "h", "k", "O1", "q", "s", "t", "v", "N0", "N100000", "R30", "T0", "T-1"]),
    (
        "ms",
        &[
            "b",
            "c",
            "C987654321",
            "F7",
            "I",
            "k",
            "O2",
            "q",
            "s",
            "T0",
            "T100000",
            "ME",
            "MA",
            "MP",
            "MR",
            "MS",
            "E99",
        ],
    ),
    ("md", &["b", "C987654321", "I", "k", "O3", "q", "T0", "E99"]),
    (
        "ma",
        &[
            "b",
            "C987654321",
            "N0",
            "J5",
            "D2",
            "T0",
            "MI",
            "MD",
            "M+",
            "M-",
            "O4",
            "t",
            "c",
            "v",
            "q",
            "k",
            "E99",
        ],
    ),
    ("me", &["x"]),
];

impl Dialect for Memcached {
    const VARIANTS: &'static [&'static [&'static str]] = &[
        &["redis: false"],
        &["redis: false", "shard_queue_max: 1", "queue_wait: 60s"],
        &["redis: false", "shard_queue_max: 3", "queue_wait: 60s", "in_flight_max: 2"],
        &["redis: false", "in_flight_max: 1", "server_connections: 2"],
    ];

    fn server(&self) -> Server {
        Server::memcached(&["-t", "1", "-m", "1024"])
    }

    fn beginning(&self, prefix: &str) -> Vec<u8> {
        format!("set {prefix}b 0 0 1\r\nb\r\n").into_bytes()
    }

    fn barrier(&self, prefix: &str, number: usize) -> (Vec<u8>, Vec<u8>) {
        let opaque = 100_000 + number;
        (format!("mg {prefix}b O{opaque}\r\n").into_bytes(), format!("HD O{opaque}\r\n").into_bytes())
    }

    /// Two versions of memcached do not refuse the same, nor word it alike.
    fn compares(&self) -> bool {
        self.is_ours
    }

    /// A line, with its value if it has one.
    fn reply_end(&self, bytes: &[u8]) -> Option<usize> {
        let newline = bytes.iter().position(|&byte| byte == b'\n')?;
        let mut words = bytes[..newline].trim_ascii_end().split(|&byte| byte == b' ');
        let length = match words.next() {
            Some(b"VALUE") => words.nth(2),
            Some(b"VA") => words.next(),
            _ => None,
        };
        let length = length.and_then(|length| std::str::from_utf8(length).ok()?.parse::<usize>().ok());
        let end = newline + 1 + length.map_or(0, |length| length + 2);
        (end <= bytes.len()).then_some(end)
    }

    fn by_design(&self, request: &[u8], reply: &[u8]) -> bool {
        let only_errors = reply.split_inclusive(|&byte| byte == b'\n').all(|line| {
            line.ends_with(b"\r\n") && (line.starts_with(b"CLIENT_ERROR") || line.starts_with(b"ERROR"))
        });
        let line_end = request.iter().position(|&byte| byte == b'\n').unwrap_or(request.len());
        let line = request[..line_end].strip_suffix(b"\r").unwrap_or(&request[..line_end]);
        let words: Vec<_> = line.split(|&byte| byte == b' ').filter(|word| !word.is_empty()).collect();
        let name = words.first().copied().unwrap_or_default();
        // Where the server closes the connection without a word, or ours does.
        let last = reply.split_inclusive(|&byte| byte == b'\n').next_back().unwrap_or_default();
        if CLOSING.iter().any(|words| String::from_utf8_lossy(last).contains(words)) {
            return true;
        }
        // The server says so once it has swallowed the value.
        if reply == b"SERVER_ERROR object too large for cache\r\n" && request.len() < LARGE {
            return true;
        }
        // It looks at the length first, ours, which does not know what it takes, at the end of the value.
        if reply.starts_with(b"CLIENT_ERROR bad data chunk\r\n") && request.len() >= LARGE && only_errors {
            return true;
        }
        let is_foul = has_foul_line(&request[..line_end]);
        let is_error = reply.starts_with(b"CLIENT_ERROR") || reply.starts_with(b"ERROR");
        // A server that counts otherwise would take the value for requests: ours is answered once, the value is
        // swallowed. So ours may be stricter with meta commands.
        if name.len() == 2 && name[0] == b'm' && reply.starts_with(b"CLIENT_ERROR") && only_errors {
            return true;
        }
        // The server takes back replies to requests before this one.
        if name.starts_with(b"g") && words.iter().any(|word| word.len() > KEY_MAX) {
            return reply.starts_with(BAD_LINE.as_bytes());
        }
        // The server takes some of them modulo 2^32.
        if words.get(2).is_some_and(|flags| exceeds_32_bits(flags)) && is_error {
            return only_errors;
        }
        // One version's line is another's two.
        if is_foul && is_error {
            return true;
        }
        is_error && String::from_utf8_lossy(reply).contains(" is refused: connect to the server directly")
    }

    fn normal(&self, request: &[u8], reply: &[u8]) -> Vec<u8> {
        // The `q` flag is not passed on, so that the server may find another mistake first.
        let is_meta = request.trim_ascii_start().starts_with(b"m");
        let words: Vec<&[u8]> = request.trim_ascii().split(|byte| byte.is_ascii_whitespace()).collect();
        // Also of the lines that a refused value is read as.
        let is_foul = has_foul_line(request);
        let has = |flag: u8| words.iter().skip(2).any(|word| word.first() == Some(&flag));
        // The server tells of numbers that it makes although it is asked to be quiet; from outside that looks like success.
        let is_made_quietly = words[0] == b"ma" && has(b'q') && has(b'N');
        let (mut out, mut rest) = (Vec::new(), reply);
        while let Some(length) = self.reply_end(rest) {
            let (part, after) = rest.split_at(length);
            rest = after;
            let newline = part.iter().position(|&byte| byte == b'\n').expect("a part has a line");
            let line = String::from_utf8_lossy(part[..newline].trim_ascii_end());
            let words: Vec<&str> = line.split(' ').collect();
            if is_made_quietly && matches!(words[0], "HD" | "VA") {
                continue;
            }
            let line = match words[..] {
                ["VALUE", key, flags, length, _] => format!("VALUE {key} {flags} {length} unique"),
                ["ME", key, ..] => format!("ME {key}"),
                ["HD" | "VA" | "EN" | "NS" | "NF" | "EX", ..] => {
                    words.iter().map(|word| plain_flag(word)).collect::<Vec<_>>().join(" ")
                }
                _ => line.clone().into_owned(),
            };
            let is_error = line.starts_with("CLIENT_ERROR");
            let line = if is_error && is_meta || is_foul && line.contains("ERROR") {
                "an error".into()
            } else if line.starts_with(BAD_LINE) {
                // Some commands add how they are used.
                BAD_LINE.to_owned()
            } else {
                line
            };
            out.extend_from_slice(line.as_bytes());
            out.extend_from_slice(&part[newline..]);
        }
        out.extend_from_slice(rest);
        out
    }

    fn witness(&self, client: &mut Client, round: usize) -> Result<(), String> {
        let key = format!("witness:{}", round % 5);
        let value = format!("{key} round {round}");
        let request = format!("set {key} 0 0 {}\r\n{value}\r\nget {key}\r\nmg {key} v\r\n", value.len());
        client.send(request.as_bytes());
        let length = value.len();
        let wanted =
            format!("STORED\r\nVALUE {key} 0 {length}\r\n{value}\r\nEND\r\nVA {length}\r\n{value}\r\n");
        let got: String = (0..3).map(|_| client.text_reply()).collect();
        let wanted = wanted.as_bytes().escape_ascii().to_string();
        if got == wanted { Ok(()) } else { Err(format!("  the witness wanted {wanted}\n  and got {got}")) }
    }

    fn script(&self, dice: &mut Dice, prefix: &str, _client: usize) -> Vec<Request> {
        let count = 10 + dice.below(50);
        (0..count)
            .map(|_| {
                let mut request = match dice.below(12) {
                    0..=2 => stored(dice, prefix),
                    3 => retrieved(dice, prefix),
                    4 => changed(dice, prefix),
                    5..=9 => meta(dice, prefix),
                    10 => line(dice),
                    _ => foul(dice, prefix),
                };
                if dice.one_in(40) {
                    request = padded(dice, request);
                }
                if !request.ends_with(b"\r\n") {
                    // For a value that takes more than it was given, so that it does not take the barrier.
                    request.extend_from_slice(b"\r\nx\r\n");
                }
                // What is broken by chance needs the barrier, to find its reply.
                Request { bytes: request, barrier: true }
            })
            .collect()
    }

    fn sweeps(&self, prefix: &str) -> Vec<Vec<Request>> {
        let mut lines = Vec::new();
        for (name, flags) in FLAGS {
            for count in 0..=32 {
                for value in ["V", "mn\r\nmn\r\nmn", "get victim:1\r\nget victim:1"] {
                    let length = if name == "ms" { format!(" {}", value.len()) } else { String::new() };
                    let tail = if name == "ms" { format!("{value}\r\n") } else { String::new() };
                    let plain = [flags[0], "k"];
                    let many: Vec<_> = (0..count).map(|place| plain[place % 2]).collect();
                    // Each flag by its own, so that none comes twice where there are enough of them.
                    let all: Vec<_> = (0..count).map(|place| flags[place % flags.len()]).collect();
                    let unknown: Vec<_> = (0..count).map(|place| format!("P{place}")).collect();
                    let key = if flags[0] == "b" { "Zm9v" } else { "foo" };
                    for words in [many.join(" "), all.join(" "), unknown.join(" "), " ".repeat(count)] {
                        lines.push(format!("{name} {key}{length} {words}\r\n{tail}"));
                    }
                    if name != "ms" {
                        break;
                    }
                }
            }
            for opaque in [0, 1, 30, 31, 32, 33, 34, 64, 249, 250, 251] {
                let length = if name == "ms" { " 1" } else { "" };
                let tail = if name == "ms" { "V\r\n" } else { "" };
                lines.push(format!("{name} {prefix}k{length} O{}\r\n{tail}", "o".repeat(opaque)));
            }
        }
        for length in
            [1, 2, 239, 240, 247, 248, 249, 250, 251, 252, 255, 256, 332, 333, 334, 335, 336, 500, 1000]
        {
            let key = "k".repeat(length);
            let encoded = "QUJD".repeat(length / 4 + 1);
            let encoded = &encoded[..length];
            for request in [
                format!("get {key}\r\n"),
                format!("gat 0 {key} {key}\r\n"),
                format!("set {key} 0 0 1\r\nV\r\n"),
                format!("set {key} 0 0 1 noreply\r\nV\r\n"),
                format!("cas {key} 0 0 1 5\r\nV\r\n"),
                format!("delete {key}\r\n"),
                format!("incr {key} 1\r\n"),
                format!("touch {key} 0\r\n"),
                format!("mg {key} v k\r\n"),
                format!("ms {key} 1\r\nV\r\n"),
                format!("md {key}\r\n"),
                format!("ma {key} N0\r\n"),
                format!("me {key}\r\n"),
                format!("mg {encoded} b k v\r\n"),
                format!("ms {encoded} 1 b k\r\nV\r\n"),
                format!("md {encoded} b k\r\n"),
            ] {
                lines.push(request);
            }
        }
        for number in NUMBERS {
            let time = lasting(number);
            for request in [
                format!("set {prefix}n {number} 0 1\r\nV\r\n"),
                format!("set {prefix}n 0 {time} 1\r\nV\r\n"),
                format!("cas {prefix}n 0 0 1 {number}\r\nV\r\n"),
                format!("gat {time} {prefix}g\r\n"),
                format!("touch {prefix}g {time}\r\n"),
                format!("incr {prefix}n {number}\r\n"),
                format!("verbosity {number}\r\n"),
                format!("mg {prefix}m N{time} v\r\n"),
                format!("mg {prefix}g T{time}\r\n"),
                format!("mg {prefix}m R{time} v\r\n"),
                format!("ms {prefix}m 1 F{number}\r\nV\r\n"),
                format!("ms {prefix}m 1 T{time}\r\nV\r\n"),
                format!("ms {prefix}m 1 C{number}\r\nV\r\n"),
                format!("ms {prefix}m 1 M{number}\r\nV\r\n"),
                format!("md {prefix}m C{number}\r\n"),
                format!("ma {prefix}a N0 J{number} v\r\n"),
                format!("ma {prefix}a D{number} v\r\n"),
            ] {
                lines.push(request);
            }
        }
        // Every letter as a flag, with and without something behind it.
        for letter in (b'!'..=b'~').map(char::from) {
            for (name, _) in FLAGS {
                for flag in [format!("{letter}"), format!("{letter}0"), format!("{letter}{letter}")] {
                    let (length, tail) = if name == "ms" { (" 5", "mn\r\nm\r\n") } else { ("", "") };
                    lines.push(format!("{name} {prefix}f{length} {flag}\r\n{tail}"));
                }
            }
        }
        for count in 0..30 {
            for name in [
                "get",
                "gets",
                "gat 0",
                "set",
                "cas",
                "delete",
                "incr",
                "touch",
                "verbosity",
                "version",
                "mn",
            ] {
                lines.push(format!("{name}{}\r\n", " 0".repeat(count)));
            }
        }
        let mut scripts: Vec<Vec<Request>> = lines
            .chunks(300)
            .map(|lines| lines.iter().map(|line| Request::new(line.as_str())).collect())
            .collect();
        // What the server may answer by closing the connection has a script of its own.
        for length in [1_024, 2_046, 2_047, 2_048, 2_049, 8_192] {
            for name in [
                "get k",
                "gets k",
                "mg k v",
                "set k 0 0 1",
                "ms k 1",
                "delete k",
                "nosuch",
                "mn",
                "verbosity",
            ] {
                let line = format!("{name}{}\r\n", " ".repeat(length - name.len()));
                scripts.push(vec![Request::new(line), Request::new("get k\r\n")]);
            }
            let keys = " key".repeat(length / 4);
            scripts.push(vec![Request::new(format!("get{keys}\r\n")), Request::new("get k\r\n")]);
        }
        for length in
            ["2147483645", "2147483646", "2147483647", "4294967295", "-1", "1048000", "1048576", "1048577"]
        {
            for request in [
                format!("set k 0 0 {length}\r\n"),
                format!("ms k {length}\r\n"),
                format!("ms k {length} q\r\n"),
            ] {
                scripts.push(vec![Request::new(request)]);
            }
        }
        scripts
    }
}

/// What ours says before it closes the connection.
const CLOSING: [&str; 3] = ["line is longer than 2048 bytes", "this is ", "binary protocol"];

/// No whole value that is too large is smaller.
const LARGE: usize = 1_000_000;

/// A number that no item has.
const UNIQUE: &str = "987654321";

const BAD_LINE: &str = "CLIENT_ERROR bad command line format";

/// Whether one of the lines has a byte that ours lets no line have.
fn has_foul_line(lines: &[u8]) -> bool {
    lines.split(|&byte| byte == b'\n').any(|line| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        line.contains(&0) || line.contains(&b'\r')
    })
}

/// Longest key.
const KEY_MAX: usize = 250;

fn exceeds_32_bits(word: &[u8]) -> bool {
    std::str::from_utf8(word)
        .is_ok_and(|text| text.parse::<u128>().is_ok_and(|number| number > u128::from(u32::MAX)))
}

/// Times and unique numbers are not the same on two servers.
fn plain_flag(word: &str) -> String {
    let digits = |rest: &str| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit());
    match word.split_at_checked(1) {
        Some((letter @ ("c" | "t" | "l"), rest)) if digits(rest) => format!("{letter}#"),
        _ => word.to_owned(),
    }
}

fn key(dice: &mut Dice, prefix: &str) -> String {
    let key = format!("{prefix}{}", dice.below(6));
    match dice.below(40) {
        0 => format!("{key:k<249}"),
        1 => format!("{key:k<250}"),
        2 => format!("{key:k<251}"),
        3 => format!("{key}\u{e9}\u{1}\u{7f}"),
        _ => key,
    }
}

fn number(dice: &mut Dice, usual: &str) -> String {
    if dice.one_in(12) { dice.choose(&NUMBERS).to_owned() } else { usual.to_owned() }
}

/// A number as a time: none that may be over while a script is played.
fn lasting(number: &str) -> &str {
    match number {
        "+1" => "+100000",
        "01" => "0100000",
        other => other,
    }
}

fn time(dice: &mut Dice) -> String {
    lasting(&number(dice, "0")).to_owned()
}

fn value(dice: &mut Dice, prefix: &str) -> Vec<u8> {
    match dice.below(60) {
        0 => vec![b'v'; dice.below(20_000)],
        1 => vec![b'w'; 1_047_900 + dice.below(700)],
        2..12 => {
            let length = dice.below(40);
            dice.bytes(length)
        }
        _ => dice.choose(&VALUES).replace("victim:", prefix).into_bytes(),
    }
}

/// The line and the value that it announces, mostly.
fn with_value(dice: &mut Dice, prefix: &str, before: &str, after: &str) -> Vec<u8> {
    let value = value(dice, prefix);
    let length = match dice.below(40) {
        0 => dice.choose(&NUMBERS[..8]).to_owned(),
        1 => (value.len() + 1).to_string(),
        2 => value.len().saturating_sub(1).to_string(),
        3 => format!("{:03}", value.len()),
        _ => value.len().to_string(),
    };
    let is_broken = length != value.len().to_string();
    let end = if dice.one_in(60) { "\n" } else { "\r\n" };
    let end = if is_broken || end == "\n" { format!("{end}x\r\nx\r\n") } else { end.to_owned() };
    [format!("{before} {length}{after}\r\n").as_bytes(), &value, end.as_bytes()].concat()
}

fn stored(dice: &mut Dice, prefix: &str) -> Vec<u8> {
    let name = dice.choose(&["set", "set", "set", "add", "replace", "append", "prepend", "cas"]);
    let (key, mut flags, time) = (key(dice, prefix), number(dice, "7"), time(dice));
    if exceeds_32_bits(flags.as_bytes()) {
        flags.truncate(4);
    }
    let mut after = if name == "cas" { format!(" {}", number(dice, UNIQUE)) } else { String::new() };
    match dice.below(16) {
        0..=2 => after.push_str(" noreply"),
        3 => after.push_str(" x"),
        _ => {}
    }
    with_value(dice, prefix, &format!("{name} {key} {flags} {time}"), &after)
}

fn retrieved(dice: &mut Dice, prefix: &str) -> Vec<u8> {
    let name = dice.choose(&["get", "get", "gets", "gat", "gats"]);
    let mut line = name.to_owned();
    if name.starts_with("gat") {
        line.push_str(&format!(" {}", time(dice)));
    }
    let count = match dice.below(10) {
        0 => 30 + dice.below(300),
        _ => 1 + dice.below(5),
    };
    for _ in 0..count {
        line.push_str(&format!(" {}", key(dice, prefix)));
    }
    format!("{line}\r\n").into_bytes()
}

fn changed(dice: &mut Dice, prefix: &str) -> Vec<u8> {
    let key = key(dice, prefix);
    let line = match dice.below(8) {
        0 => format!("delete {key}"),
        1 => format!("delete {key} {}", number(dice, "0")),
        2..=3 => format!("incr {key} {}", number(dice, "3")),
        4..=5 => format!("decr {key} {}", number(dice, "2")),
        _ => format!("touch {key} {}", time(dice)),
    };
    let end = match dice.below(12) {
        0..=1 => " noreply",
        2 => " noreply noreply",
        3 => " x",
        _ => "",
    };
    format!("{line}{end}\r\n").into_bytes()
}

fn meta(dice: &mut Dice, prefix: &str) -> Vec<u8> {
    let (name, known) = FLAGS[dice.below(FLAGS.len())];
    let count = match dice.below(12) {
        0 => 12 + dice.below(16),
        _ => dice.below(6),
    };
    let mut flags = String::new();
    let mut is_base64 = false;
    for _ in 0..count {
        let flag = match dice.below(30) {
            0 => format!("O{}", "o".repeat(28 + dice.below(8))),
            1 => {
                let letter = dice.choose(&["T", "N", "J", "D", "C", "F", "M", "R", "E", "S"]);
                let number = dice.choose(&NUMBERS);
                format!(
                    "{letter}{}",
                    if ["T", "N", "R"].contains(&letter) { lasting(number) } else { number }
                )
            }
            2 => char::from(b'!' + dice.below(94) as u8).to_string(),
            _ => dice.choose(known).to_owned(),
        };
        is_base64 |= flag.starts_with('b');
        flags.push_str(&format!(" {flag}"));
    }
    let mut key = key(dice, prefix);
    if is_base64 && !dice.one_in(10) {
        use base64::Engine as _;
        key = base64::engine::general_purpose::STANDARD.encode(&key[..key.len().min(180)]);
    }
    if name == "ms" {
        return with_value(dice, prefix, &format!("{name} {key}"), &flags);
    }
    format!("{name} {key}{flags}\r\n").into_bytes()
}

fn line(dice: &mut Dice) -> Vec<u8> {
    const LINES: [&str; 25] = [
        "",
        " ",
        "x",
        "get",
        "get ",
        "GET a",
        "set",
        "mn",
        "mn x",
        "mg",
        "ms",
        "md",
        "ma",
        "me",
        "version",
        "version x",
        "verbosity",
        "verbosity 1",
        "verbosity 1 noreply",
        "flush_all x",
        "flush_all 1 2 3",
        "cache_memlimit 8",
        "slabs reassign 1 2",
        "lru tune 1 2",
        "watch",
    ];
    let end = if dice.one_in(3) { "\n" } else { "\r\n" };
    format!("{}{end}", dice.choose(&LINES)).into_bytes()
}

/// A good request with some bytes of its line changed.
fn foul(dice: &mut Dice, prefix: &str) -> Vec<u8> {
    const BYTES: &[u8] = b" -+kqx\xff\r\n\0";
    let (mut request, bytes) = match dice.below(4) {
        // Ours refuses more than the server then, and the value is read as requests.
        0 => (stored(dice, prefix), &BYTES[..7]),
        1 => (retrieved(dice, prefix), BYTES),
        2 => (changed(dice, prefix), BYTES),
        _ => (meta(dice, prefix), &BYTES[..7]),
    };
    let line_end = request.iter().position(|&byte| byte == b'\n').unwrap_or(request.len());
    for _ in 0..1 + dice.below(2) {
        let at = dice.below(line_end.max(1));
        let byte = bytes[dice.below(bytes.len())];
        match dice.below(3) {
            0 => request[at] = byte,
            1 => request.insert(at, byte),
            _ => drop(request.remove(at)),
        }
    }
    request.extend_from_slice(b"x\r\nx\r\n");
    request
}

/// With blanks where they are allowed, up to the length of a line.
fn padded(dice: &mut Dice, mut request: Vec<u8>) -> Vec<u8> {
    let Some(at) = request.iter().position(|&byte| byte == b' ') else { return request };
    let line = request.iter().position(|&byte| byte == b'\n').unwrap_or(0);
    let wanted = [line + 1, 1_020, 1_024, 1_030, 2_040, 2_046][dice.below(6)] + dice.below(4);
    request.splice(at..at, vec![b' '; wanted.saturating_sub(line)]);
    request
}
