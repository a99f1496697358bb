//! SIGKILL at any moment: what was acknowledged is there, what was removed stays gone, and the store opens. If the store
//! follows memory, it holds a moment of the past, not before the last flush.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::failure::Failure;
use crate::harm::{self, Harm, Options, Struck};
use crate::process::Running;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many workers to kill
    #[arg(long, default_value_t = 100)]
    kills: u64,
    #[command(flatten)]
    options: Options,
}

pub(crate) fn run(args: &Args) -> Result<String, Failure> {
    let mut kill = Kill {
        parent: args.options.parent(),
        dir: None,
    };
    harm::run(&mut kill, args.kills, &args.options)
}

struct Kill {
    parent: PathBuf,
    /// Where the current store is.
    dir: Option<TempDir>,
}

impl Harm for Kill {
    const NAME: &'static str = "kill";
    const REACHES_STORES: bool = false;

    fn again(&self, times: u64) -> String {
        format!("kill --kills {times}")
    }

    fn room(&mut self) -> Result<PathBuf, Failure> {
        let mut builder = tempfile::Builder::new();
        let dir = builder.prefix("torture-kill-").tempdir_in(&self.parent)?;
        Ok(self.dir.insert(dir).path().to_path_buf())
    }

    fn strike(&mut self, child: Running, _: &mut fastrand::Rng) -> Result<Struck, Failure> {
        Struck::killed(child)
    }

    fn keep(&mut self) -> &Path {
        match &mut self.dir {
            Some(dir) => {
                dir.disable_cleanup(true);
                dir.path()
            }
            None => &self.parent,
        }
    }
}
