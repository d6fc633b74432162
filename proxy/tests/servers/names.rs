//! A real name server whose answers change.

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use super::{address, eventually, unused_port};

/// BIND with one zone, which updates may change. It listens on addresses of interfaces only, so on 127.0.0.1.
pub struct Names {
    process: Child,
    pub port: u16,
    pub folder: PathBuf,
}

impl Names {
    pub fn start() -> Self {
        let folder =
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("names-{}-{}", address(), unused_port()));
        fs::create_dir_all(&folder).expect("the folder for temporary files is writable");
        let (shown, host) = (folder.display(), Ipv4Addr::LOCALHOST);
        let port = port_of_an_interface();
        let zone = "$TTL 1\n@ IN SOA ns.cache.test. root.cache.test. (1 60 60 60 1)\n@ IN NS ns.cache.test.\n\
                    ns IN A 127.0.0.1\n";
        fs::write(folder.join("zone"), zone).expect("a file");
        let settings = format!(
            "options {{ directory \"{shown}\"; pid-file none; session-keyfile \"{shown}/session\"; listen-on port \
             {port} {{ {host}; }}; listen-on-v6 {{ none; }}; recursion no; allow-update {{ any; }}; \
             dnssec-validation no; }};\ncontrols {{ }};\nzone \"cache.test\" {{ type primary; file \"zone\"; }};\n"
        );
        fs::write(folder.join("named.conf"), settings).expect("a file");
        let process = Self::run(&folder, port);
        Self { process, port, folder }
    }

    fn run(folder: &Path, port: u16) -> Child {
        let process = Command::new("named")
            .args(["-g", "-n", "1", "-c"])
            .arg(folder.join("named.conf"))
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("named: {error}; apt-get install bind9"));
        eventually(|| TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_ok().to_string(), "true");
        process
    }

    /// From now on all it says of the zone is that it cannot say anything now.
    pub fn fail(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let settings = self.folder.join("named.conf");
        let text = fs::read_to_string(&settings).expect("it was written");
        // A copy of a zone that nobody has.
        let copy = format!("type secondary; primaries {{ {}; }}; file \"copy\";", address());
        fs::write(&settings, text.replace("type primary; file \"zone\";", &copy)).expect("a file");
        self.process = Self::run(&self.folder, self.port);
    }

    /// The ports of hosts from now on, as a headless Service tells them.
    pub fn set_ports(&self, hosts: &[(&str, u16)]) {
        let mut lines = "update delete _redis._tcp.cache.test. SRV\n".to_owned();
        for (host, port) in hosts {
            let _ =
                writeln!(lines, "update add _redis._tcp.cache.test. 1 SRV 0 10 {port} {host}.cache.test.");
        }
        self.update(&lines);
    }

    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.process.id().to_string()).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill -{name}; apt-get install procps");
    }

    /// The addresses of a host from now on.
    pub fn set(&self, host: &str, addresses: &[Ipv4Addr]) {
        let mut lines = format!("update delete {host}.cache.test. A\n");
        for address in addresses {
            let _ = writeln!(lines, "update add {host}.cache.test. 1 A {address}");
        }
        self.update(&lines);
    }

    fn update(&self, lines: &str) {
        let script = format!("server 127.0.0.1 {}\nzone cache.test.\n{lines}send\n", self.port);
        let mut nsupdate = Command::new("nsupdate")
            .stdin(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("nsupdate: {error}; apt-get install bind9-dnsutils"));
        nsupdate.stdin.take().expect("piped").write_all(script.as_bytes()).expect("it reads");
        assert!(nsupdate.wait().expect("it ends").success(), "refused: {lines}");
    }
}

/// An unused port of 127.0.0.1, which all processes have in common: below those that connections begin at, and another one
/// for each process and call.
fn port_of_an_interface() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 10_000 + (std::process::id() % 1_000) as u16 * 20;
    let is_free = |port: &u16| {
        let place = (Ipv4Addr::LOCALHOST, *port);
        TcpListener::bind(place).is_ok() && UdpSocket::bind(place).is_ok()
    };
    let ports = std::iter::repeat_with(|| first + NEXT.fetch_add(1, Ordering::Relaxed));
    ports.take(100).find(is_free).expect("there are many")
}

impl Drop for Names {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}
