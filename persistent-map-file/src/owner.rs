//! Who has a lock: what an owner writes into the lock file, and what another one makes of it.
//!
//! Process ids repeat: two containers that share a volume may both be process 1. So a process is known by a random number
//! that it draws once, and its id, its user and its machine are for people to read.

use std::collections::hash_map::RandomState;
use std::fs;
use std::hash::{BuildHasher as _, Hasher as _};
use std::path::Path;
use std::process;
use std::sync::OnceLock;

use persistent_map_core::Owner;

/// What every text of an owner begins with. Other texts are not written over.
pub(crate) const BEGINNING: &str = "process ";

/// What every note begins with that an owner has left.
const NOTE: &str = "note: ";

/// Longer than any of them.
pub(crate) const LONGEST: u64 = 1024;

/// The text of this process: a line for people, and one to compare by.
pub(crate) fn introduction() -> String {
    let place = place();
    let mut text = format!("{BEGINNING}{} ({})", process::id(), program());
    for (what, value) in [("user", &place.user), ("host", &place.host)] {
        if !value.is_empty() {
            text.extend([", ", what, " ", value.as_str()]);
        }
    }
    text + &format!(
        "\ntoken {} pid-namespace {} boot {}\n",
        token(),
        place.pid_namespace,
        place.boot
    )
}

/// The text that leaves a note, and names nobody.
pub(crate) fn noted(note: &str) -> String {
    format!("{NOTE}{}\n", note.lines().next().unwrap_or_default())
}

/// Whether it is a note, or the beginning of one.
pub(crate) fn is_note(text: &str) -> bool {
    text.starts_with(NOTE)
}

pub(crate) fn note_in(text: &str) -> Option<&str> {
    text.strip_prefix(NOTE)?.strip_suffix('\n')
}

/// Who has written this text, for an error.
pub(crate) fn named_by(text: &str) -> Owner {
    let mut lines = text.lines();
    let person = lines.next().unwrap_or_default().trim();
    if person.is_empty() || is_note(text) {
        return Owner::Other("somebody who has not left a name".to_string());
    }
    let marks = lines.next().unwrap_or_default();
    let mark = |name: &str| {
        let mut words = marks.split(' ').skip_while(|word| *word != name);
        words.nth(1).unwrap_or_default()
    };
    let is_other = |name: &str, own: &str| ![mark(name), own].contains(&"") && mark(name) != own;
    let place = place();
    if mark("token") == token() {
        let own_id = format!("{BEGINNING}{} ", process::id());
        return if person.starts_with(&own_id) {
            Owner::ThisProcess(person.to_string())
        } else {
            Owner::Other(format!(
                "{person}, of which this program is a fork, or the other way round"
            ))
        };
    }
    Owner::Other(if is_other("boot", &place.boot) {
        format!("{person} (on another machine)")
    } else if is_other("pid-namespace", &place.pid_namespace) {
        format!("{person} (in another container)")
    } else {
        person.to_string()
    })
}

/// Whether this process, or one that was forked from it or the other way round, has written this text.
pub(crate) fn is_own(text: &str) -> bool {
    text.contains(&format!("\ntoken {} ", token()))
}

/// A user, by number and name.
#[cfg(unix)]
pub(crate) fn user(id: u32) -> String {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(id)).then_some(name)
    });
    match name {
        Some(name) => format!("{id} ({})", plain(name)),
        None => id.to_string(),
    }
}

/// What the kernel tells of where a process runs; empty where it does not.
#[derive(Default)]
struct Place {
    user: String,
    host: String,
    pid_namespace: String,
    boot: String,
}

fn place() -> &'static Place {
    static PLACE: OnceLock<Place> = OnceLock::new();
    PLACE.get_or_init(|| {
        let word = |path| plain(fs::read_to_string(path).unwrap_or_default().trim());
        let namespace = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        Place {
            user: own_user(),
            host: word("/proc/sys/kernel/hostname"),
            pid_namespace: namespace
                .to_string_lossy()
                .chars()
                .filter(char::is_ascii_digit)
                .collect(),
            boot: word("/proc/sys/kernel/random/boot_id"),
        }
    })
}

#[cfg(unix)]
fn own_user() -> String {
    use std::os::unix::fs::MetadataExt as _;

    fs::metadata("/proc/self").map_or_else(|_| String::new(), |own| user(own.uid()))
}

#[cfg(not(unix))]
fn own_user() -> String {
    String::new()
}

/// Drawn once. The standard library takes the keys of its hashes from the system's source of random numbers.
fn token() -> &'static str {
    static TOKEN: OnceLock<String> = OnceLock::new();
    TOKEN.get_or_init(|| {
        let number = || RandomState::new().build_hasher().finish();
        let (first, second) = (number(), number());
        format!("{first:016x}{second:016x}")
    })
}

fn program() -> String {
    let program = std::env::current_exe().ok();
    let name = program.as_deref().and_then(Path::file_name);
    name.map_or_else(
        || "unknown program".to_string(),
        |name| plain(&name.to_string_lossy()),
    )
}

/// Without what could be taken for another line.
fn plain(text: &str) -> String {
    text.chars()
        .filter(|letter| !letter.is_control())
        .take(100)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description_of(text: &str) -> String {
        named_by(text).to_string()
    }

    /// The text of another process at this place.
    fn of_another() -> String {
        introduction().replace(token(), &"0".repeat(32))
    }

    #[test]
    fn a_process_is_known_by_its_token_and_not_by_its_id() {
        let own = description_of(&introduction());
        assert!(own.starts_with("this very process: process "), "{own}");
        assert!(is_own(&introduction()));
        let other = description_of(&of_another());
        let id = format!("process {} ", process::id());
        assert!(other.starts_with(&id), "{other}");
        assert!(!is_own(&of_another()));
    }

    #[cfg(target_os = "linux")] // Others do not tell where a process runs.
    #[test]
    fn another_container_and_another_machine_are_told() {
        let place = place();
        for (mark, words) in [
            (&place.pid_namespace, "(in another container)"),
            (&place.boot, "(on another machine)"),
        ] {
            assert!(!mark.is_empty());
            let text = of_another().replace(mark.as_str(), "1");
            let owner = description_of(&text);
            assert!(owner.ends_with(words), "{owner}");
        }
        let fork = introduction().replacen(&process::id().to_string(), "1", 1);
        assert!(description_of(&fork).contains("fork"), "{fork}");
    }

    #[test]
    fn a_text_without_marks_is_shown_as_it_is() {
        assert_eq!(description_of("process 7 (app)"), "process 7 (app)");
        assert_eq!(description_of(""), "somebody who has not left a name");
    }

    #[test]
    fn the_longest_introduction_can_be_read() {
        assert!(introduction().len() as u64 + 500 < LONGEST);
    }
}
