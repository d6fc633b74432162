//! What takes a shard out of the ring, and what must not, with real servers: a shard that hangs, descriptors that run out,
//! databases that are not there; and what the log says of it.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use servers::{Fake, Server, eventually};

mod servers;

/// Many clients on all workers notice that it hangs; it is one stall.
#[test]
fn a_shard_that_hangs_is_ejected_after_limit_times_timeout_whatever_the_workers() {
    let shards = [Server::redis(&[]), Server::redis(&[])];
    let settings = ["timeout: 1000", "auto_eject_hosts: true", "server_failure_limit: 2"];
    let proxies = [1, 2, 4].map(|workers| Server::memstore_of(workers, &settings, &shards));
    let done = AtomicBool::new(false);
    let mut took = Vec::new();
    std::thread::scope(|scope| {
        for (proxy, number) in proxies.iter().flat_map(|proxy| (0..8).map(move |number| (proxy, number))) {
            let (mut client, done) = (proxy.connect(), &done);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    for key in 0..8 {
                        client.tell(&format!("GET key:{number}:{key}"));
                    }
                }
            });
        }
        for proxy in &proxies {
            let mut client = proxy.connect();
            eventually(|| client.tell("GET a"), "$-1\r\n");
        }
        let begin = Instant::now();
        shards[0].signal("STOP");
        let is_ejected = |proxy: &Server| proxy.printed().contains("shard ejected");
        while took.len() < proxies.len() && begin.elapsed() < Duration::from_secs(60) {
            let ejected = proxies.iter().filter(|proxy| is_ejected(proxy)).count();
            took.resize(ejected, begin.elapsed());
            std::thread::sleep(Duration::from_millis(5));
        }
        shards[0].signal("CONT");
        done.store(true, Ordering::Relaxed);
    });
    // A machine that is busy takes longer; none takes less, but for what it was slow to answer before.
    let early = took.iter().any(|took| *took < Duration::from_millis(1600));
    let printed = proxies.each_ref().map(Server::printed).concat();
    assert!(took.len() == proxies.len() && !early, "{took:?}: {printed}");
}

#[test]
fn the_only_shard_and_the_last_one_stay_in_the_ring() {
    let shards = [Server::redis(&[]), Server::redis(&[])];
    let settings = ["auto_eject_hosts: true", "server_failure_limit: 1", "eject_max_share: 100%"];
    let lines: Vec<String> = shards.iter().enumerate().map(|(index, shard)| shard.line(index)).collect();
    let (proxy, admin) = Server::memstore_with_admin(&settings, &lines, &[]);
    drop(shards);
    let mut client = proxy.connect();
    let mut ask = || {
        (0..8).for_each(|key| drop(client.tell(&format!("GET key:{key}"))));
        proxy.printed().contains("ejection withheld").to_string()
    };
    eventually(&mut ask, "true");
    assert_eq!(proxy.printed().matches("shard ejected").count(), 1, "{}", proxy.printed());
    let metrics = get(&admin, "/metrics");
    let withheld =
        metrics.lines().filter(|line| line.starts_with("memstore_shard_ejections_withheld_total{"));
    assert_eq!(withheld.filter(|line| line.ends_with(" 1")).count(), 1, "{metrics}");
}

/// What `/topology` says of the workers is true when it is said: none of them sends anything to a shard that is out.
#[test]
fn once_all_workers_are_at_an_epoch_none_of_them_uses_the_one_before() {
    let shards = [Server::redis(&[]), Server::redis(&[]), Server::redis(&[])];
    let settings = ["auto_eject_hosts: true", "server_failure_limit: 1", "server_retry_timeout: 100"];
    let lines: Vec<String> = shards.iter().enumerate().map(|(index, shard)| shard.line(index)).collect();
    let (proxy, admin) = Server::memstore_with_admin(&settings, &lines, &[]);
    // Each worker has half of them.
    let mut clients: Vec<_> = (0..8).map(|_| proxy.connect()).collect();
    for client in &mut clients {
        (0..30).for_each(|key| assert_eq!(client.tell(&format!("GET key:{key}")), "$-1\r\n"));
    }
    let pool = || {
        let answer = get(&admin, "/topology");
        let (_, body) = answer.split_once("\r\n\r\n").expect("a body");
        let document: serde_json::Value = serde_json::from_str(body).expect("JSON");
        document["pools"].as_object().and_then(|pools| pools.values().next()).expect("the pool").clone()
    };
    let before = pool();
    let at = before["epoch"].as_u64().expect("a number");
    assert_eq!(before["worker_epochs"], serde_json::json!([at, at]));
    let [dead, ..] = shards;
    drop(dead);
    let begin = Instant::now();
    loop {
        // Whoever asks first notices that it is gone.
        (0..30).for_each(|key| drop(clients[0].tell(&format!("GET key:{key}"))));
        let now = pool();
        let epoch = now["epoch"].as_u64().expect("a number");
        if epoch > at && now["worker_epochs"] == serde_json::json!([epoch, epoch]) {
            assert!(now["shards"][0]["ejected"] == true, "{now}");
            break;
        }
        assert!(begin.elapsed() < Duration::from_secs(60), "{now}");
    }
    for client in &mut clients {
        (0..30).for_each(|key| assert_eq!(client.tell(&format!("GET key:{key}")), "$-1\r\n"));
    }
    let metrics = get(&admin, "/metrics");
    let epochs = metrics.lines().filter(|line| line.starts_with("memstore_worker_topology_epoch{"));
    assert_eq!(epochs.count(), 2, "{metrics}");
}

#[test]
fn clients_beyond_the_descriptors_are_refused_and_shards_and_probes_have_theirs() {
    // For the clients of this test.
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("2,000 descriptors");
    let shards = [Server::redis(&[]), Server::redis(&[])];
    let settings = ["auto_eject_hosts: true", "server_failure_limit: 1"];
    let (proxy, [admin, _]) = Server::memstore_with_few_files(256, &settings, &shards);
    let mut clients: Vec<TcpStream> = Vec::new();
    let (mut refused, mut served) = (0, 0);
    let peer = proxy.connect().peer();
    for _ in 0..1_000 {
        clients.push(TcpStream::connect(peer).expect("it listens"));
    }
    for client in &mut clients {
        client.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
        // It may be gone already.
        let _ = client.write_all(b"SET key v\r\nGET key\r\n");
    }
    let mut room = [0; 1024];
    let wanted = b"+OK\r\n$1\r\nv\r\n";
    for client in &mut clients {
        let mut reply = Vec::new();
        while reply.len() < wanted.len() {
            match client.read(&mut room) {
                Ok(0) => break,
                Ok(count) => reply.extend_from_slice(&room[..count]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
                Err(error) => panic!("neither served nor refused: {error}; {}", proxy.printed()),
            }
        }
        match &reply[..] {
            // What was sent to it after it was closed takes the words with it.
            b"" | b"-ERR max number of clients reached\r\n" => refused += 1,
            _ => {
                assert_eq!(String::from_utf8_lossy(&reply), String::from_utf8_lossy(wanted));
                served += 1;
            }
        }
    }
    assert!(refused > 500 && served > 50, "{refused} refused, {served} served");
    assert!(get(&admin, "/alive").starts_with("HTTP/1.1 200"), "{}", get(&admin, "/alive"));
    assert!(get(&admin, "/ready").starts_with("HTTP/1.1 200"), "{}", get(&admin, "/ready"));
    let metrics = get(&admin, "/metrics");
    assert!(metrics.contains("process_max_fds 256"), "{metrics}");
    let log = proxy.printed();
    assert!(!log.contains("ejected") && !log.contains("unhealthy"), "{log}");
    // Those whose first byte was not written yet have heard why.
    let mut late = TcpStream::connect(peer).expect("it listens");
    let mut words = String::new();
    late.read_to_string(&mut words).expect("words");
    assert_eq!(words, "-ERR max number of clients reached\r\n");
    drop(clients);
    eventually(|| proxy.connect().tell("GET key"), "$1\r\nv\r\n");
}

#[test]
fn connections_held_open_at_the_admin_address_and_the_statistics_take_nothing_of_shards() {
    let shards = [Server::redis(&[])];
    let (proxy, [admin, stats]) = Server::memstore_with_few_files(256, &[], &shards);
    // As many clients as there may be.
    let mut clients = Vec::new();
    for client in (0..256).map(|_| proxy.connect()) {
        clients.push(client);
        if clients.last_mut().expect("just pushed").tell("SET key v") != "+OK\r\n" {
            break;
        }
    }
    assert!((100..200).contains(&clients.len()), "{}", clients.len());
    let held: Vec<TcpStream> = [&admin, &stats]
        .into_iter()
        .flat_map(|address| (0..150).map(move |_| TcpStream::connect(address).expect("it listens")))
        .collect();
    let last = held.last().expect("there are some");
    last.set_nonblocking(true).expect("a socket");
    let files = format!("/proc/{}/fd", proxy.id());
    let mut most = 0;
    let begin = Instant::now();
    // The statistics answer one after the other.
    while last.peek(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock) {
        most = most.max(std::fs::read_dir(&files).expect("it runs").count());
        assert!(begin.elapsed() < Duration::from_secs(60), "no answer; {most} descriptors are in use");
    }
    assert!(most < 220, "{most} descriptors are in use");
    shards[0].connect().tell("CLIENT KILL TYPE normal");
    eventually(|| clients[0].tell("SET key v"), "+OK\r\n");
    proxy.rewrite(&["timeout: 10000"], &[shards[0].line(0)]);
    proxy.signal("HUP");
    proxy.says("reloaded");
    assert!(!proxy.printed().contains("out of resources"), "{}", proxy.printed());
}

#[test]
fn a_database_that_shards_do_not_have_is_refused_at_select() {
    let shards = [Server::redis(&["--databases", "1"]), Server::redis(&["--databases", "3"])];
    let settings = ["auto_eject_hosts: true", "server_failure_limit: 1"];
    let proxy = Server::memstore(&settings, &shards[1..]);
    let mut client = proxy.connect();
    eventually(|| client.tell("SELECT 3"), "-ERR DB index is out of range\r\n");
    assert_eq!(client.tell("SELECT 2"), "+OK\r\n");
    assert_eq!(client.tell("SET a 1"), "+OK\r\n");
    let both = Server::memstore(&settings, &shards);
    let mut client = both.connect();
    eventually(|| client.tell("SELECT 1"), "-ERR DB index is out of range\r\n");
    for key in 0..10 {
        assert_eq!(client.tell(&format!("GET key:{key}")), "$-1\r\n");
    }
    assert_eq!(client.tell("FLUSHALL"), "+OK\r\n", "no settings keep clients from databases");
    assert!(!both.printed().contains("ejected"), "{}", both.printed());
}

/// Servers end a connection for requests beyond their limits, which somebody may send on purpose.
#[test]
fn a_connection_that_a_request_ends_is_no_failure_of_a_shard_that_answers_a_probe() {
    let fake = Fake::new(|mut stream, _| {
        let mut room = [0; 65536];
        while let Ok(count @ 1..) = stream.read(&mut room) {
            let text = String::from_utf8_lossy(&room[..count]).into_owned();
            if text.contains("bad") || stream.write_all(b"+PONG\r\n").is_err() {
                return;
            }
        }
    });
    let other = Server::redis(&[]);
    let settings = ["auto_eject_hosts: true", "server_failure_limit: 1", "resp3: true", "databases: 1"];
    let proxy = Server::memstore_over(&settings, &[fake.line.clone(), other.line(1)]);
    let mut client = proxy.connect();
    let closed = "-ERR shard shard-0: connection closed\r\n";
    let key = (0..64).map(|number| format!("bad:{number}")).find(|key| {
        let reply = client.tell(&format!("GET {key}"));
        reply == closed
    });
    let key = key.expect("a key of that shard");
    for _ in 0..10 {
        assert_eq!(client.tell(&format!("GET {key}")), closed);
    }
    assert!(!proxy.printed().contains("ejected"), "{}", proxy.printed());
    // One that ends every connection does not answer a probe either.
    let broken = Fake::new(|mut stream, _| drop(stream.read(&mut [0; 1024])));
    let proxy = Server::memstore_over(&settings, &[broken.line.clone(), other.line(1)]);
    let mut client = proxy.connect();
    let mut ask = || {
        client.tell(&format!("GET {key}"));
        proxy.printed().contains("shard ejected").to_string()
    };
    eventually(&mut ask, "true");
}

/// What the kernel has not delivered is dropped then: it must not reach the shard after a later write.
#[test]
fn a_connection_that_is_given_up_is_reset() {
    let ends = Arc::new(Mutex::new(Vec::new()));
    let seen = ends.clone();
    let fake = Fake::new(move |mut stream, _| {
        let (mut room, mut text) = ([0; 65536], String::new());
        let end = loop {
            match stream.read(&mut room) {
                Ok(0) => break "closed",
                Ok(count) => text.push_str(&String::from_utf8_lossy(&room[..count])),
                Err(_) => break "reset",
            }
            if text.contains("PING") {
                let _ = stream.write_all(b"+PONG\r\n");
            }
        };
        if text.contains("SET") {
            seen.lock().expect("nobody panics with it").push(end);
        }
    });
    let proxy = fake.proxy(&["timeout: 100", "resp3: true", "databases: 1"]);
    let mut client = proxy.connect();
    assert_eq!(client.tell("SET a 1"), "-ERR shard shard-0: timed out\r\n");
    eventually(|| ends.lock().expect("nobody panics with it").join(" "), "reset");
}

#[test]
fn the_log_says_which_shard_of_which_pool_does_not_want_us_and_when_that_changes() {
    let shards = [Server::redis(&["--requirepass", "secret"])];
    let proxy = Server::memstore(&["resp3: true"], &shards);
    let mut client = proxy.connect();
    assert_eq!(client.tell("GET a"), "-NOAUTH Authentication required.\r\n");
    let line = |proxy: &Server, part: &str| {
        let printed = proxy.printed();
        printed.lines().find(|line| line.contains(part)).map(str::to_owned)
    };
    let refused = "shard refused the proxy's requests";
    eventually(|| line(&proxy, refused).is_some().to_string(), "true");
    let said = line(&proxy, refused).expect("just seen");
    let address = shards[0].line(0).split(":1 ").next().expect("an address").to_owned();
    for part in ["pool=pool", "shard=shard-0", &format!("address={address}"), "suppressed=0", "NOAUTH"] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    // A probe hears it as well.
    eventually(|| line(&proxy, "shard became unhealthy").is_some().to_string(), "true");
    let said = line(&proxy, "shard became unhealthy").expect("just seen");
    assert!(said.contains("NOAUTH Authentication required"), "{said}");

    let shards = [Server::redis(&[])];
    let proxy = Server::memstore(&["timeout: 1000"], &shards);
    let mut client = proxy.connect();
    assert_eq!(client.tell("SET a 1"), "+OK\r\n");
    shards[0].signal("STOP");
    for _ in 0..3 {
        assert!(client.tell("SET a 1").ends_with("timed out\r\n"));
    }
    eventually(|| line(&proxy, "shard became unhealthy").is_some().to_string(), "true");
    shards[0].signal("CONT");
    eventually(|| client.tell("SET a 1"), "+OK\r\n");
    eventually(|| line(&proxy, "shard became healthy").is_some().to_string(), "true");
    let count = |text: &str| proxy.printed().matches(text).count();
    assert_eq!(
        (count("shard became unhealthy"), count("shard became healthy")),
        (1, 1),
        "{}",
        proxy.printed()
    );
}

/// The head and body of what the admin address says.
fn get(admin: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(admin).expect("it listens");
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer.replacen("HTTP/1.0", "HTTP/1.1", 1)
}
