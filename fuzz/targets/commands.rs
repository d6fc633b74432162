//! What a shard says to COMMAND. Whatever it is, what is learnt is bounded, keys stand inside of requests, and the proxy's own rows stay
//! what they are.

use memstore_proxy::protocol::Plan;
use memstore_proxy::protocol::resp::command::table::COMMANDS;
use memstore_proxy::protocol::resp::local::command::answer;
use memstore_proxy::protocol::store::Commands;

/// The arguments that each learnt command is tried with.
const ARGUMENTS: [usize; 6] = [1, 2, 3, 4, 7, 20];

/// One input: rows behind their number, which a server tells of beside those that all have.
pub fn run_input(bytes: &[u8]) {
    let _ = Commands::read(bytes);
    let Some((head, rows)) = bytes.iter().position(|&byte| byte == b'\n').map(|end| bytes.split_at(end + 1))
    else {
        return;
    };
    let head = std::str::from_utf8(head).unwrap_or_default().trim_end();
    let Some(number) = head.strip_prefix('*').and_then(|number| number.parse::<usize>().ok()) else { return };
    let known = COMMANDS.iter().filter(|row| row.since.is_everywhere());
    let mut whole: Vec<u8> = format!("*{}\r\n", known.clone().count().saturating_add(number)).into();
    for row in known {
        whole.extend(format!("*6\r\n+{}\r\n:-1\r\n*0\r\n:0\r\n:0\r\n:0\r\n", row.name).bytes());
    }
    whole.extend_from_slice(rows);
    let Some(commands) = Commands::read(&whole) else { return };
    let words: Vec<&[u8]> = bytes.split(|byte| b"\r\n: ".contains(byte)).collect();
    for row in commands.learnt() {
        assert!(memstore_proxy::protocol::resp::command::index::lookup(row.name.as_bytes()).is_none());
        for args in ARGUMENTS {
            let arg = |at: usize| words[at % words.len()];
            let Ok(found) = row.key_positions(args, arg) else { continue };
            assert!(found.len() <= 3 * args, "{}: {} keys of {args}", row.name, found.len());
            assert!(found.into_iter().all(|at| (1..args).contains(&at)), "{}", row.name);
        }
    }
    let all = Commands::of_all([Some(&commands), Some(&commands)].into_iter());
    assert_eq!(all, commands);
    assert_eq!(commands.missing_of(&all).count(), 0);
    let mut plan = Plan::default();
    for resp3 in [false, true] {
        answer(&[b"COMMAND"], true, &commands, resp3, &mut plan);
        plan.shared = None;
        plan.reply.clear();
    }
}
