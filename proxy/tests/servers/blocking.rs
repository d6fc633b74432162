//! Clients that wait at real servers.

use super::{Client, Server, eventually};

/// So many clients wait, as a server or the proxy says itself.
pub fn blocked(door: &Server, count: usize) {
    let mut client = door.connect();
    let said = |client: &mut Client| {
        let info = client.tell("INFO clients");
        let line = info.lines().find(|line| line.starts_with("blocked_clients:"));
        line.expect("it is said").trim().to_owned()
    };
    eventually(|| said(&mut client), &format!("blocked_clients:{count}"));
}

/// Steps parted by ` ; `: `a> X` is said and not answered yet, `a< ` is its answer, `a: X` is said and answered, `2 wait`
/// is how many wait at `counts` then. `clean` is said first. The answer to HELLO names the server and is not told.
pub fn play(script: &str, clean: &str, door: &Server, counts: &Server) -> String {
    let mut clients: [Client; 3] = std::array::from_fn(|_| door.connect());
    let mut heard = Vec::new();
    clients[0].tell(clean);
    for step in script.split(" ; ").map(str::trim) {
        let (who, said) = step.split_once([' ', '>', '<', ':']).unwrap_or((step, ""));
        if said.trim() == "wait" {
            blocked(counts, who.parse().expect("a number"));
            continue;
        }
        let client = &mut clients[usize::from(who.as_bytes()[0] - b'a')];
        if let Some(version) = said.trim().strip_prefix("HELLO ") {
            let reply = client.tell(&format!("HELLO {version}"));
            assert!(reply.starts_with(['*', '%']), "{reply}");
            continue;
        }
        if step.as_bytes()[1] != b'<' {
            client.begin(said.trim());
        }
        if step.as_bytes()[1] != b'>' {
            heard.push(String::from_utf8_lossy(&client.reply()).replace("\r\n", " "));
        }
    }
    heard.join("| ")
}
