//! What the service manager is told, in its order (sd_notify(3)).
use std::{os::unix::net::UnixDatagram, time::Duration};

use super::{CONFIG, upstream};
use crate::support::{Gateway, HANG, wait_until};

struct Manager {
    socket: UnixDatagram,
    folder: tempfile::TempDir,
}

impl Manager {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixDatagram::bind(folder.path().join("notify")).unwrap();
        socket.set_read_timeout(Some(HANG)).unwrap();
        Self { socket, folder }
    }

    fn environment(&self) -> String {
        format!("export NOTIFY_SOCKET={}/notify;", self.folder.path().display())
    }

    fn read(&self) -> String {
        let mut bytes = [0; 1024];
        let length = self.socket.recv(&mut bytes).expect("the manager is told something");
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    /// The next datagram that begins so; signs of life and the line of the status may come before.
    #[track_caller]
    fn wait(&self, start: &str) -> String {
        loop {
            let said = self.read();
            if said.starts_with(start) {
                return said;
            }
            let is_passing = said == "WATCHDOG=1" || said.starts_with("STATUS=");
            assert!(is_passing, "{said:?} in the place of {start:?}");
        }
    }
}

#[test]
fn the_service_manager_follows() {
    let (manager, upstream) = (Manager::new(), upstream());
    let variables = manager.environment();
    let gateway = Gateway::start_under(&variables, CONFIG, &[("UP", &upstream.url())]).unwrap();
    assert!(manager.wait("READY=1\n").contains("STATUS=serving revision "));

    gateway.signal("HUP");
    let said = manager.wait("RELOADING=1\n");
    let at: u64 = said.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap().parse().unwrap();
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap();
    let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    assert!((uptime - at as f64 / 1e6).abs() < HANG.as_secs_f64(), "{at} {uptime}");
    manager.wait("READY=1\n");

    // The old one names the new one, since nobody else is listened to; then that one speaks.
    assert_eq!(gateway.upgrade(&[]).code, Some(0));
    let pid = gateway.note_successor();
    assert_eq!(manager.wait("MAINPID="), format!("MAINPID={pid}"));
    manager.wait("READY=1\n");

    gateway.rewrite_config("routes: 7");
    wait_until("the reload fails", || {
        gateway.metric("tollgate_config_reloads_total", &[("result", "failure")]) > 0.0
    });
    while !manager.read().contains("the last reload failed") {}
    let line = format!("kill -TERM {pid}");
    assert!(std::process::Command::new("sh").args(["-c", &line]).status().unwrap().success());
    manager.wait("STOPPING=1\n");
}

#[test]
fn it_says_that_it_lives_while_it_does() {
    let (manager, upstream) = (Manager::new(), upstream());
    let variables =
        format!("{} export WATCHDOG_USEC=400000 WATCHDOG_PID=$$;", manager.environment());
    let gateway = Gateway::start_under(&variables, CONFIG, &[("UP", &upstream.url())]).unwrap();
    manager.wait("READY=1\n");
    for _ in 0..5 {
        manager.wait("WATCHDOG=1");
    }
    // Its successor is watched too, though the number in the environment is another one's; and says so
    // at once, since what the first has said may be long ago.
    assert_eq!(gateway.upgrade(&[]).code, Some(0));
    manager.wait("MAINPID=");
    manager.wait("READY=1\n");
    assert_eq!(manager.read(), "WATCHDOG=1");
    for _ in 0..5 {
        manager.wait("WATCHDOG=1");
    }
    // A process that stands still says nothing.
    let pid = gateway.note_successor();
    let signal = |name: &str| {
        let line = format!("kill -{name} {pid}");
        assert!(std::process::Command::new("sh").args(["-c", &line]).status().unwrap().success());
    };
    signal("STOP");
    manager.socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    // What was sent before it stood still.
    let mut bytes = [0; 99];
    while manager.socket.recv(&mut bytes).is_ok() {}
    signal("CONT");
    manager.socket.set_read_timeout(Some(HANG)).unwrap();
    manager.wait("WATCHDOG=1");
}

#[test]
fn the_watchdog_of_another_process_is_not_ours() {
    let (manager, upstream) = (Manager::new(), upstream());
    let variables =
        format!("{} export WATCHDOG_USEC=100000 WATCHDOG_PID=1;", manager.environment());
    let gateway = Gateway::start_under(&variables, CONFIG, &[("UP", &upstream.url())]).unwrap();
    manager.wait("READY=1\n");
    gateway.signal("TERM");
    assert!(manager.read().starts_with("STOPPING=1"));
}
