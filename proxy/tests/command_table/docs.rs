//! COMMAND DOCS: `redis-cli` makes its hints from it, and breaks over a reply of another shape.

use memstore_proxy::protocol::Plan;
use memstore_proxy::protocol::resp::command::table::COMMANDS;
use memstore_proxy::protocol::resp::command::{Commands, Version};
use memstore_proxy::protocol::resp::local::command as command_reply;

use super::server::{Server, Value, read, text};
use super::{Dump, answer, row};

/// The parts of the documentation of one command, each as it came.
fn parts(mut reply: &[u8]) -> Vec<(String, Vec<u8>)> {
    let rest = &mut reply;
    let outer = header(rest);
    assert!(["%1", "*2"].contains(&outer.as_str()), "{outer} is no map of one command");
    read(rest);
    let inner = header(rest);
    let pairs: usize = inner[1..].parse().expect("a number");
    let pairs = if inner.starts_with('*') { pairs / 2 } else { pairs };
    (0..pairs).map(|_| (read(rest).value.text().to_owned(), read(rest).bytes)).collect()
}

fn header(rest: &mut &[u8]) -> String {
    let end = rest.iter().position(|&byte| byte == b'\n').expect("a line") + 1;
    let line = text(&rest[..end - 2]);
    *rest = &rest[end..];
    line
}

/// Arguments without the texts that servers show from 7.2 on where they are the names.
fn without_display(arguments: &Value) -> Value {
    let Value::Array(values) = arguments else { return arguments.clone() };
    let is_map = values.len() % 2 == 0 && values.first() == Some(&Value::Text("name".into()));
    if !is_map {
        return Value::Array(values.iter().map(without_display).collect());
    }
    let pairs = values
        .chunks(2)
        .filter(|pair| pair[0] != Value::Text("display_text".into()) || &pair[1] != arguments.member("name"));
    Value::Array(pairs.flatten().map(without_display).collect())
}

#[test]
fn documentation_is_the_servers_byte_for_byte_where_it_says_the_same() {
    let server = Server::start();
    let (family, version) = server.identity();
    let version = Version::parse(&version).expect("a version");
    let dumps = Dump::all();
    // Another release says the same as the one that was recorded.
    let dump = dumps.iter().find(|dump| dump.family() == family && dump.version().0[..2] == version.0[..2]);
    let shows_texts = version >= Version([7, 2, 0]);
    for resp3 in [false, true] {
        let mut client = server.connect();
        if resp3 {
            client.ask(&[b"HELLO", b"3"]);
        }
        let (mut compared, mut equal) = (0, 0);
        let rows = COMMANDS.iter().flat_map(|row| std::iter::once(row).chain(row.subcommands));
        for row in rows.filter(|row| row.is_served(false)) {
            let request: [&[u8]; 3] = [b"COMMAND", b"DOCS", row.name.as_bytes()];
            let theirs = client.ask(&request).bytes;
            if theirs == b"*0\r\n" || theirs == b"%0\r\n" {
                continue; // this server does not know it
            }
            let [ours, theirs] = [parts(&answer(&request, resp3)), parts(&theirs)];
            let order = |parts: &[(String, Vec<u8>)]| -> Vec<String> {
                parts.iter().map(|(name, _)| name.clone()).filter(|name| name != "module").collect()
            };
            let mut expected = order(&theirs);
            expected.retain(|name| name != "complexity" && name != "history");
            // That a command is one of the system's own is not kept.
            expected.retain(|name| name != "doc_flags" || row.name != "pfdebug");
            let of = |parts: &[(String, Vec<u8>)], part: &str| {
                parts.iter().find(|(name, _)| name == part).map(|(_, bytes)| bytes.clone())
            };
            let says_the_same = |part: &str| {
                let said =
                    dump.map(|dump| dump.commands()[row.name].get(part).and_then(|said| said.as_str()));
                said.is_some_and(|said| said == row.docs.said(part))
            };
            if says_the_same("deprecated_since") && says_the_same("arguments") {
                assert_eq!(order(&ours), expected, "{}", row.name);
            }
            for part in ["deprecated_since", "replaced_by", "group"] {
                if says_the_same(part) {
                    assert_eq!(of(&ours, part), of(&theirs, part), "{}: {part}", row.name);
                }
            }
            let [Some(ours), Some(theirs)] = [of(&ours, "arguments"), of(&theirs, "arguments")] else {
                continue;
            };
            compared += 1;
            let is_equal = if shows_texts {
                ours == theirs
            } else {
                let [ours, theirs] =
                    [&ours, &theirs].map(|bytes| without_display(&read(&mut &bytes[..]).value));
                ours == theirs
            };
            equal += usize::from(is_equal);
            if says_the_same("arguments") && !is_equal {
                assert_eq!(text(&ours), text(&theirs), "{}", row.name);
            }
        }
        println!("{}: {equal} of {compared} have the same arguments", server.version());
        assert!(equal > 150, "only {equal} of {compared} commands have the server's arguments");
    }
}

#[test]
fn every_argument_of_every_command_is_told() {
    let mut plan = Plan::default();
    command_reply::answer(&[b"COMMAND", b"DOCS"], true, &Commands::default(), false, &mut plan);
    let out = plan.shared.expect("it is shared");
    let reply = read(&mut &out[..]).value;
    let mut told = 0;
    let all = Dump::all();
    let of_redis = all.iter().filter(|dump| dump.family() == "redis");
    let newest = of_redis.max_by_key(|dump| dump.version()).expect("a dump");
    for (name, said) in newest.commands().iter().filter(|(name, _)| !name.contains('|')) {
        let Some(arguments) = said.get("arguments").and_then(|said| said.as_str()) else { continue };
        let Some(row) = row(name).filter(|row| row.is_served(true)) else { continue };
        let expected = arguments.matches(['[', ' ']).count() + 1;
        let doc = reply.member(row.name);
        assert_eq!(names(doc.member("arguments")), expected, "{name}: {arguments}");
        told += 1;
    }
    assert!(told > 200, "only {told} commands have arguments");
}

/// The number of arguments, with those within others.
fn names(arguments: &Value) -> usize {
    let inner = |argument: &Value| {
        let pairs = argument.array().chunks(2);
        pairs.filter(|pair| pair[0].text() == "arguments").map(|pair| names(&pair[1])).sum::<usize>()
    };
    arguments.array().iter().map(|argument| 1 + inner(argument)).sum()
}
