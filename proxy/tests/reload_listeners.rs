//! Addresses where clients connect, while the configuration changes: they are taken, handed over and given up.

use std::sync::atomic::Ordering;

use servers::{Client, Fake, Server, address, eventually, logged, reload};

mod servers;

/// The time that the server tells, in microseconds.
fn micros(client: &mut Client) -> u64 {
    let reply = client.tell("TIME");
    let numbers: Vec<u64> = reply.lines().skip(2).step_by(2).filter_map(|line| line.parse().ok()).collect();
    numbers[0] * 1_000_000 + numbers[1]
}

#[test]
fn pools_come_and_go_and_listeners_are_handed_over() {
    let shard = Server::redis(&[]);
    let line = shard.line(0);
    let proxy = Server::memstore_over(&[], std::slice::from_ref(&line));
    let mut client = proxy.connect();
    assert_eq!(client.tell("SET a 1"), "+OK\r\n");
    let listen = client.peer();
    let other = Server::redis(&[]);
    let port = servers::unused_port();
    // The first pool is renamed and keeps its address; a second one comes.
    proxy.overwrite(&format!(
        "renamed:\n  listen: {listen}\n  redis: true\n  servers:\n   - {line}\n\
         second:\n  listen: {}:{port}\n  redis: true\n  servers:\n   - {}\n",
        address(),
        other.line(0),
    ));
    reload(&proxy);
    // Clients of the removed pool are drained.
    assert_eq!(client.until_closed(), b"");
    assert_eq!(proxy.connect().tell("GET a"), "$1\r\n1\r\n");
    let mut second = servers::connect(port);
    assert_eq!(second.tell("SET b 2"), "+OK\r\n");
    assert_eq!(other.connect().tell("GET b"), "$1\r\n2\r\n");
    // Its clock is that of the others, but for how long ago each has looked at it.
    let mut first = proxy.connect();
    let is_same = || {
        let times = [&mut first, &mut second].map(micros);
        let after = micros(&mut first);
        (times[0]..=after + 20_000).contains(&(times[1] + 20_000)).to_string()
    };
    eventually(is_same, "true");
    // And goes; the first moves to its address.
    proxy.overwrite(&format!(
        "renamed:\n  listen: {}:{port}\n  redis: true\n  servers:\n   - {line}\n",
        address()
    ));
    reload(&proxy);
    assert_eq!(second.until_closed(), b"");
    assert_eq!(servers::connect(port).tell("GET a"), "$1\r\n1\r\n");
    eventually(|| std::net::TcpStream::connect(listen).is_err().to_string(), "true");
}

#[test]
fn clients_are_limited_also_where_the_listener_has_moved() {
    let shard = Server::redis(&[]);
    let proxy = Server::memstore_over(&["client_connections: 5"], &[shard.line(0)]);
    for _ in 0..20 {
        // Further ones are refused until those that have gone are seen to be gone.
        eventually(|| proxy.connect().tell("PING"), "+PONG\r\n");
    }
    let mut stays = eventually_served(&proxy);
    eventually(|| stays.tell("CLIENT LIST").matches("id=").count().to_string(), "1");
    let port = servers::unused_port();
    proxy.overwrite(&format!(
        "pool:\n  listen: {}:{port}\n  redis: true\n  client_connections: 5\n  servers:\n   - {}\n",
        address(),
        shard.line(0)
    ));
    reload(&proxy);
    let mut clients: Vec<Client> = (0..12).map(|_| servers::connect(port)).collect();
    let served =
        clients.iter_mut().filter_map(|client| (client.tell("PING") == "+PONG\r\n").then_some(())).count();
    assert_eq!(served, 4, "one is connected to the former address");
    drop(stays);
}

/// A client that is served, once others are seen to be gone.
fn eventually_served(proxy: &Server) -> Client {
    loop {
        let mut client = proxy.connect();
        if client.tell("PING") == "+PONG\r\n" {
            return client;
        }
    }
}

#[test]
fn permissions_of_a_unix_socket_change_without_the_socket() {
    use std::os::unix::fs::PermissionsExt as _;
    let shard = Server::redis(&[]);
    let line = shard.line(0);
    let path = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("s{}.sock", servers::unused_port()));
    let proxy = Server::memstore_over(&[], std::slice::from_ref(&line));
    let listen = proxy.connect().peer();
    let pools = |mode: &str| {
        format!(
            "pool:\n  listen: {listen}\n  redis: true\n  servers:\n   - {line}\n\
             local:\n  listen: {} {mode}\n  redis: true\n  servers:\n   - {line}\n",
            path.display()
        )
    };
    for mode in ["0600", "0666"] {
        proxy.overwrite(&pools(mode));
        reload(&proxy);
        let found = std::fs::metadata(&path).expect("the socket is there").permissions().mode() & 0o777;
        assert_eq!(format!("{found:04o}"), mode);
        assert!(std::os::unix::net::UnixStream::connect(&path).is_ok());
    }
}

#[test]
fn a_socket_of_another_process_is_not_taken() {
    let shard = Server::redis(&[]);
    let line = shard.line(0);
    let path = std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
        .join(format!("other{}.sock", servers::unused_port()));
    let other = std::os::unix::net::UnixListener::bind(&path).expect("a new path");
    let proxy = Server::memstore_over(&[], std::slice::from_ref(&line));
    let listen = proxy.connect().peer();
    proxy.overwrite(&format!(
        "pool:\n  listen: {listen}\n  redis: true\n  servers:\n   - {line}\n\
         local:\n  listen: {}\n  redis: true\n  servers:\n   - {line}\n",
        path.display()
    ));
    proxy.signal("HUP");
    logged(&proxy, "is in use by another process", 1);
    assert!(std::os::unix::net::UnixStream::connect(&path).is_ok());
    drop(other);
    let _ = std::fs::remove_file(path);
}

#[test]
fn an_address_can_become_one_that_contains_it() {
    let shard = Server::redis(&[]);
    let lines = [shard.line(0)];
    let proxy = Server::memstore_over(&[], &lines);
    let mut client = proxy.connect();
    assert_eq!(client.tell("SET a 1"), "+OK\r\n");
    let listen = client.peer();
    let port = listen.port();
    for host in ["0.0.0.0", "127.0.0.1", "0.0.0.0"] {
        proxy.overwrite(&format!(
            "pool:\n  listen: {host}:{port}\n  redis: true\n  servers:\n   - {}\n",
            lines[0]
        ));
        reload(&proxy);
        assert!(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok(), "{host}");
        assert_eq!(std::net::TcpStream::connect(listen).is_ok(), host == "0.0.0.0");
        assert_eq!(client.tell("GET a"), "$1\r\n1\r\n");
    }
}

#[test]
fn nobody_can_connect_where_shards_are_still_waited_for() {
    let shard = Server::redis(&[]);
    let line = shard.line(0);
    let proxy = Server::memstore_over(&[], std::slice::from_ref(&line));
    let listen = proxy.connect().peer();
    let silent = Fake::answering(b"", false);
    let port = servers::unused_port();
    proxy.overwrite(&format!(
        "pool:\n  listen: {listen}\n  redis: true\n  servers:\n   - {line}\n\
         other:\n  listen: {}:{port}\n  redis: true\n  adopt_wait: 500ms\n  servers:\n   - {}\n",
        address(),
        silent.line
    ));
    proxy.signal("HUP");
    eventually(|| (silent.connections.load(Ordering::Relaxed) > 0).to_string(), "true");
    assert!(std::net::TcpStream::connect((address(), port)).is_err());
    logged(&proxy, "does not answer", 1);
}

/// What all tests over servers rely on: a port that somebody takes between its choice and its use is no end of a test.
#[test]
fn a_port_that_was_taken_meanwhile_is_passed_over() {
    let taken = std::net::TcpListener::bind((address(), 0)).expect("a free port");
    let first = std::cell::Cell::new(Some(taken.local_addr().expect("it is bound").port()));
    let tries = std::cell::RefCell::new(Vec::new());
    let server = Server::start(&servers::redis_program(), "redis-server", |port| {
        let port = first.take().unwrap_or(port);
        tries.borrow_mut().push(port);
        let words = ["--bind", &address().to_string(), "--port", &port.to_string(), "--save", ""];
        words.map(str::to_owned).to_vec()
    });
    assert_eq!(server.connect().tell("PING"), "+PONG\r\n");
    let tries = tries.into_inner();
    assert!(tries.len() == 2 && tries[0] == taken.local_addr().expect("it is bound").port(), "{tries:?}");
}
