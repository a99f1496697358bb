//! A file system in a file, which is mounted for one proof.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;
use tempfile::TempDir;

use crate::failure::Failure;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum FileSystem {
    Ext4,
    Xfs,
}

impl FileSystem {
    /// What the command line and `mount` call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            FileSystem::Ext4 => "ext4",
            FileSystem::Xfs => "xfs",
        }
    }

    /// The command that makes one.
    pub(crate) fn maker(self) -> String {
        format!("mkfs.{}", self.name())
    }

    fn make(self, image: &Path) -> Result<(), String> {
        let mut command = Command::new(self.maker());
        command.arg("-q");
        if self == FileSystem::Ext4 {
            // Also where it is no device, and without blocks that are kept for root, who runs this.
            command.args(["-F", "-m", "0"]);
        }
        system(command.arg(image))
    }
}

/// Dropping it unmounts it, and removes its file.
pub(crate) struct Disk {
    file_system: FileSystem,
    image: PathBuf,
    mount_point: PathBuf,
    is_mounted: bool,
    dir: TempDir,
}

impl Disk {
    /// A new one, mounted. Where that does not work, the machine cannot run the proof.
    pub(crate) fn new(file_system: FileSystem, bytes: u64, parent: &Path) -> Result<Self, Failure> {
        let mut builder = tempfile::Builder::new();
        let dir = builder.prefix("torture-disk-").tempdir_in(parent)?;
        let mut disk = Disk {
            file_system,
            image: dir.path().join("disk.img"),
            mount_point: dir.path().join("mnt"),
            is_mounted: false,
            dir,
        };
        fs::create_dir(&disk.mount_point)?;
        File::create(&disk.image)?.set_len(bytes)?;
        let made = file_system.make(&disk.image).and_then(|()| disk.attach());
        made.map_err(|why| {
            let name = file_system.name();
            Failure::CannotRun(format!("needs root, loop mounts and {name}: {why}"))
        })?;
        Ok(disk)
    }

    pub(crate) fn file_system(&self) -> FileSystem {
        self.file_system
    }

    pub(crate) fn mount_point(&self) -> &Path {
        &self.mount_point
    }

    /// Unmounts it, and mounts it again: the kernel recovers what is on it.
    pub(crate) fn mount_again(&mut self) -> Result<(), Failure> {
        system(Command::new("umount").arg(&self.mount_point)).map_err(Failure::Trouble)?;
        self.is_mounted = false;
        self.attach().map_err(Failure::Trouble)
    }

    /// Keeps the file when the disk is dropped; where it is.
    pub(crate) fn keep(&mut self) -> &Path {
        self.dir.disable_cleanup(true);
        self.dir.path()
    }

    fn attach(&mut self) -> Result<(), String> {
        system(
            Command::new("mount")
                .args(["-t", self.file_system.name(), "-o", "loop"])
                .args([&self.image, &self.mount_point]),
        )?;
        self.is_mounted = true;
        Ok(())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if !self.is_mounted {
            return;
        }
        let unmounted = system(Command::new("umount").arg(&self.mount_point));
        if unmounted.is_err() {
            // A process still has it open; the file system goes when that process does.
            let _ = system(Command::new("umount").arg("--lazy").arg(&self.mount_point));
        }
    }
}

/// Runs a command of the system; why it failed.
pub(crate) fn system(command: &mut Command) -> Result<(), String> {
    let name = command.get_program().display().to_string();
    match command.output() {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            let why = String::from_utf8_lossy(&output.stderr);
            Err(format!("{name}: {}", why.trim_end()))
        }
        Err(error) => Err(format!("{name}: {error}")),
    }
}
