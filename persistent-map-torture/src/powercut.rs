//! The power goes: a file system is shut down without what was not synced, neither in its log nor in the page cache, and
//! recovered by the kernel. What was acknowledged is there, and so is what any process has read before.
//!
//! The disk itself keeps all that it was given: a flush of the disk's own cache that is missing is not found out.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::disk::{Disk, FileSystem, system};
use crate::failure::Failure;
use crate::harm::{self, Harm, Options, Struck};
use crate::process::{self, Running};

/// More than XFS asks for at least. The file has holes where nothing was written.
const DISK_BYTES: u64 = 320 << 20;
/// How long the kernel may write before the power goes, in microseconds.
const WRITEBACK_US: u64 = 6_000;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How often the power goes
    #[arg(long, default_value_t = 100)]
    cuts: u64,
    /// What the stores are on
    #[arg(long, value_enum, default_value_t = FileSystem::Ext4)]
    fs: FileSystem,
    #[command(flatten)]
    options: Options,
    /// Set by the process itself once its mounts are its own
    #[arg(long, hide = true)]
    own_mounts: bool,
}

pub(crate) fn run(args: &Args) -> Result<String, Failure> {
    if !args.own_mounts {
        probe(args.fs)?;
        return Err(start_again_with_own_mounts());
    }
    let mut powercut = Powercut::on(args.fs, &args.options.parent())?;
    powercut.rehearse()?;
    harm::run(&mut powercut, args.cuts, &args.options)
}

/// All that is missing, in one message.
fn probe(file_system: FileSystem) -> Result<(), Failure> {
    let maker = file_system.maker();
    let needed = ["unshare", "mount", "umount", "xfs_io", &maker];
    let is_missing = |name: &&str| Command::new(name).arg("-V").output().is_err();
    let missing: Vec<&str> = needed.into_iter().filter(is_missing).collect();
    if !missing.is_empty() {
        return Err(Failure::CannotRun(format!(
            "needs {} (packages xfsprogs, e2fsprogs, mount, util-linux)",
            missing.join(", ")
        )));
    }
    system(own_mounts().arg("true")).map_err(|why| Failure::CannotRun(format!("needs root: {why}")))
}

/// Runs a command whose mounts nobody else sees. They go with its last process, however that ends.
fn own_mounts() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private"]);
    command
}

/// Replaces this process; returns only if that fails.
fn start_again_with_own_mounts() -> Failure {
    match process::myself() {
        Ok(myself) => {
            let mut command = own_mounts();
            command.arg(myself.get_program());
            command
                .args(std::env::args_os().skip(1))
                .arg("--own-mounts");
            command.exec().into()
        }
        Err(failure) => failure,
    }
}

/// A disk whose power goes.
struct Powercut {
    /// Before the disk: it must let go of the mount point before that is unmounted.
    switch: Switch,
    disk: Disk,
    stores: u64,
}

impl Powercut {
    fn on(file_system: FileSystem, parent: &Path) -> Result<Self, Failure> {
        let disk = Disk::new(file_system, DISK_BYTES, parent)?;
        Ok(Powercut {
            switch: Switch::of(disk.mount_point())?,
            disk,
            stores: 0,
        })
    }

    /// A cut that takes nothing, or too much, would prove nothing.
    fn rehearse(&mut self) -> Result<(), Failure> {
        let [synced, unsynced] =
            ["synced", "unsynced"].map(|name| self.disk.mount_point().join(name));
        fs::write(&synced, "stays")?;
        File::open(&synced)?.sync_all()?;
        self.sync_names()?;
        fs::write(&unsynced, "goes")?;
        self.cut()?;
        self.disk.mount_again()?;
        self.switch = Switch::of(self.disk.mount_point())?;
        let stays = fs::read_to_string(&synced).is_ok_and(|text| text == "stays");
        let goes = fs::read_to_string(&unsynced).map_or(true, |text| text.is_empty());
        if stays && goes {
            return Ok(());
        }
        Err(Failure::CannotRun(format!(
            "a shutdown {} what was synced and {} what was not",
            if stays { "keeps" } else { "takes" },
            if goes { "takes" } else { "keeps" }
        )))
    }

    fn cut(&mut self) -> Result<(), Failure> {
        self.switch.off()?;
        match File::create(self.disk.mount_point().join("after-the-cut")) {
            Ok(_) => Err(Failure::Trouble("a file was made after the cut".into())),
            Err(_) => Ok(()),
        }
    }

    fn sync_names(&self) -> Result<(), Failure> {
        Ok(File::open(self.disk.mount_point())?.sync_all()?)
    }

    fn store(&self) -> PathBuf {
        self.disk
            .mount_point()
            .join(format!("store-{}", self.stores))
    }
}

impl Harm for Powercut {
    const NAME: &'static str = "cut";
    const REACHES_STORES: bool = true;

    fn again(&self, times: u64) -> String {
        let file_system = self.disk.file_system().name();
        format!("powercut --fs {file_system} --cuts {times}")
    }

    fn room(&mut self) -> Result<PathBuf, Failure> {
        if self.stores > 0 {
            fs::remove_dir_all(self.store())?;
        }
        self.stores += 1;
        fs::create_dir(self.store())?;
        // Otherwise the store before may come back, and the disk becomes full.
        self.sync_names()?;
        Ok(self.store())
    }

    fn strike(&mut self, mut child: Running, rng: &mut fastrand::Rng) -> Result<Struck, Failure> {
        // As the kernel writes by itself now and then: some pages of what was not synced, in its own order.
        let writeback = if rng.u8(..3) == 0 {
            let writeback = xfs_io(self.disk.mount_point())
                .args(["-c", "syncfs"])
                .spawn()?;
            thread::sleep(Duration::from_micros(rng.u64(..WRITEBACK_US)));
            Some(writeback)
        } else {
            None
        };
        let heard = child.catch_up()?;
        self.cut()?;
        let child = child.kill()?;
        if let Some(mut writeback) = writeback {
            writeback.wait()?;
        }
        self.disk.mount_again()?;
        self.switch = Switch::of(self.disk.mount_point())?;
        Ok(Struck {
            // It may also have seen that its disk was gone, and have given up; but not in a panic.
            ended_well: (child.was_killed() || child.is_clean_error())
                && !child.stderr.contains("panicked"),
            heard,
            child,
        })
    }

    fn keep(&mut self) -> &Path {
        self.disk.keep()
    }
}

/// What shuts the file system down: a process that waits for its word, because starting one takes longer than opening a
/// store.
struct Switch(Child);

impl Switch {
    fn of(mount_point: &Path) -> Result<Self, Failure> {
        let mut command = xfs_io(mount_point);
        Ok(Switch(command.stdin(Stdio::piped()).spawn()?))
    }

    fn off(&mut self) -> Result<(), Failure> {
        // Without `-f`: it does not write the log first.
        if let Some(mut words) = self.0.stdin.take() {
            words.write_all(b"shutdown\n")?;
        }
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The tool of XFS, whose shutdown works on ext4 as well.
fn xfs_io(mount_point: &Path) -> Command {
    let mut command = Command::new("xfs_io");
    command.arg("-x").arg(mount_point);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}
