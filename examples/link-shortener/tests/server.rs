//! The server as a browser meets it, and what is left of it when it is killed.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;

/// A server on a free port. Dropping it kills it: SIGKILL, where there are signals.
struct Server {
    child: Child,
    stdout: BufReader<ChildStdout>,
    address: String,
    links: usize,
}

impl Server {
    fn start(file: &Path) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_link-shortener"))
            .args([file.as_os_str(), "0".as_ref()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let (links, address) = line.trim_end().split_once(" links at http://").unwrap();
        Server {
            child,
            stdout,
            address: address.trim_end_matches('/').to_string(),
            links: links.parse().unwrap(),
        }
    }

    /// The status, the head and the body of an answer.
    fn ask(&self, method: &str, path: &str, form: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let length = form.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {length}\r\n\
             Content-Type: application/x-www-form-urlencoded\r\n\r\n{form}",
            self.address
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, head.to_lowercase(), body.to_string())
    }

    fn add(&self, url: &str, name: &str) -> u16 {
        self.ask("POST", "/links", &format!("url={url}&name={name}"))
            .0
    }

    fn leads_to(&self, name: &str) -> Option<String> {
        let (_, head, _) = self.ask("GET", &format!("/{name}"), "");
        let location = head
            .lines()
            .find_map(|line| line.strip_prefix("location: "));
        location.map(String::from)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn links_are_added_listed_followed_and_there_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("links.db");
    let server = Server::start(&file);
    assert_eq!(server.links, 0);
    assert_eq!(server.add("https://example.com/a?b=1%262", "first"), 303);
    assert_eq!(server.add("http://example.com/second", ""), 303);
    for _ in 0..3 {
        let url = server.leads_to("first");
        assert_eq!(url.as_deref(), Some("https://example.com/a?b=1&2"));
    }
    drop(server);

    let server = Server::start(&file);
    assert_eq!(server.links, 2);
    let (status, _, page) = server.ask("GET", "/", "");
    assert_eq!(status, 200);
    assert!(
        page.contains("<td>https://example.com/a?b=1&amp;2</td><td>3</td>"),
        "{page}"
    );
    assert!(
        page.contains("<td>http://example.com/second</td><td>0</td>"),
        "{page}"
    );
}

#[test]
fn bad_input_is_refused_with_a_reason_and_stores_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(&dir.path().join("links.db"));
    for (form, expected, reason) in [
        ("url=javascript:alert(1)", 400, "An address begins with"),
        ("url=https://", 400, "An address begins with"),
        ("url=https://a.com/b%0Ac", 400, "An address begins with"),
        ("url=https://a.com&name=A%3Cb%3E", 400, "A name has at most"),
        ("url=https://a.com&name=links", 400, "A name has at most"),
        ("name=x", 400, "Send `url`"),
        ("url=https://a.com/<script>&name=a", 303, ""),
        ("url=https://b.com&name=a", 409, "This name is taken."),
    ] {
        let (status, _, page) = server.ask("POST", "/links", form);
        assert_eq!(status, expected, "{form}");
        assert!(page.contains(reason), "{form}: {page}");
    }
    let (status, _, page) = server.ask("GET", "/nobody", "");
    assert_eq!(status, 404);
    assert!(page.contains("https://a.com/&lt;script&gt;"), "{page}");
    assert_eq!(page.matches("<tr><td>").count(), 1, "{page}");
}

#[test]
fn many_at_once_are_all_counted_and_one_gets_the_name() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("links.db");
    let server = Server::start(&file);
    let statuses: Vec<u16> = thread::scope(|scope| {
        let server = &server;
        let add =
            |n| scope.spawn(move || server.add(&format!("https://example.com/{n}"), "wanted"));
        let adding: Vec<_> = (0..32).map(add).collect();
        adding
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(statuses.iter().filter(|status| **status == 303).count(), 1);
    assert_eq!(statuses.iter().filter(|status| **status == 409).count(), 31);
    thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| server.leads_to("wanted"));
        }
    });
    drop(server);
    let server = Server::start(&file);
    assert!(server.ask("GET", "/", "").2.contains("<td>32</td>"));
}

/// The file is closed in an orderly way: no log is left beside it.
#[cfg(unix)]
#[test]
fn told_to_end_it_answers_what_has_come_and_closes_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("links.db");
    let mut server = Server::start(&file);
    assert_eq!(server.add("https://example.com", "last"), 303);
    let told = Command::new("kill")
        .arg(server.child.id().to_string())
        .status();
    assert!(told.unwrap().success());
    assert!(server.child.wait().unwrap().success());
    let mut said = String::new();
    server.stdout.read_to_string(&mut said).unwrap();
    assert_eq!(said, "closed\n");
    assert!(!dir.path().join("links.db-wal").exists());
    drop(server);
    assert_eq!(Server::start(&file).links, 1);
}
