//! The applications work on real servers, and choose the shards that the Python file chooses.

use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Ports that were free at the same time, so that no two are the same.
fn ports() -> [u16; 4] {
    let free = [(); 4].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port"));
    free.map(|listener| listener.local_addr().expect("bound").port())
}

fn start(program: &str, arguments: &[&str], port: u16) -> Server {
    let mut server = Server(
        Command::new(program)
            .args(arguments)
            .arg(port.to_string())
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}; apt-get install {program}")),
    );
    let begin = Instant::now();
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
        assert!(server.0.try_wait().expect("our child").is_none(), "{program} ended at once");
        assert!(begin.elapsed() < Duration::from_secs(30), "{program} does not listen");
        std::thread::yield_now();
    }
    server
}

fn said(command: &mut Command) -> String {
    let output = command.output().expect("it runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[test]
fn rust_and_python_find_the_same_shards() {
    let ports = ports();
    let _redis =
        [0, 1].map(|at| start("redis-server", &["--bind", "127.0.0.1", "--save", "", "--port"], ports[at]));
    let _memcached =
        [2, 3].map(|at| start("memcached", &["-l", "127.0.0.1", "-U", "0", "-u", "nobody", "-p"], ports[at]));
    let shards = |first: usize| {
        let shard =
            |at: usize| format!(r#"{{"name":"shard-{at}","address":"127.0.0.1:{}"}}"#, ports[first + at]);
        format!("[{},{}]", shard(0), shard(1))
    };
    let pool = |first: usize, protocol: &str| {
        let dealt = r#""hash":"fnv1a_64","distribution":"ketama","hash_tag":"{}","pin":{"rq:":"shard-1","rq:a":"{x}","s:":"{1}"}"#;
        format!(r#"{{"protocol":"{protocol}",{dealt},"shards":{}}}"#, shards(first))
    };
    let document =
        format!(r#"{{"version":2,"pools":{{"r":{},"m":{}}}}}"#, pool(0, "redis"), pool(2, "memcache"));
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("topology-{}.json", std::process::id()));
    std::fs::write(&file, document).expect("a file");
    let user = |key: u64| format!("user:{{{}}}:{key}", key * 7919);
    let prefixes = ["rq:", "rq:a", "rq:{ab}", "s:", "s", "t:"];
    let pinned = |key: u64| format!("{}{key}", prefixes[key as usize % prefixes.len()]);
    let keys: Vec<String> = (0..40).map(user).chain((0..40).map(pinned)).collect();
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../python/memstore_ring.py");
    // The same shards once more, as a list.
    let list = file.with_extension("yml");
    std::fs::write(
        &list,
        format!("# two\n- 127.0.0.1:{}:1 shard-0\n- 127.0.0.1:{}:3 shard-1\n", ports[0], ports[1]),
    )
    .expect("a file");
    let (redis, memcached) =
        (env!("CARGO_BIN_EXE_client-side-redis"), env!("CARGO_BIN_EXE_client-side-memcached"));
    let (file_name, list_name) = (file.to_str().expect("UTF-8"), list.to_str().expect("UTF-8"));
    for (binary, source) in
        [(redis, [file_name, "r"]), (memcached, [file_name, "m"]), (redis, ["--servers", list_name])]
    {
        let by_rust = said(Command::new(binary).args(source).args(&keys));
        let by_python = said(Command::new("python3").arg("-B").arg(&python).args(source).args(&keys));
        let lines = by_rust.lines().zip(by_python.lines()).zip(&keys);
        assert_eq!(lines.clone().count(), keys.len());
        for ((rust, python), key) in lines {
            assert_eq!(rust, format!("{python}: value of {key}"));
        }
        assert!(by_rust.contains("shard-0") && by_rust.contains("shard-1"));
    }
    let _ = std::fs::remove_file(list);
    let _ = std::fs::remove_file(file);
}
