//! The trash: what is removed is renamed into it, which is atomic and fast, and deleted by a thread of its own. What is in
//! it at start is the rest of an earlier life.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
};

use super::Error;

enum Job {
    Delete(PathBuf),
    /// All before it is done.
    Tell(mpsc::Sender<()>),
}

pub(super) struct Trash {
    dir: PathBuf,
    next: AtomicU64,
    queue: mpsc::Sender<Job>,
}

impl Trash {
    /// Opens the trash and begins to delete what is in it.
    pub(super) fn open(dir: &Path) -> Result<Self, Error> {
        super::make_private_dir(dir)?;
        let (queue, jobs) = mpsc::channel::<Job>();
        thread::Builder::new()
            .name("trash".into())
            .stack_size(256 << 10)
            .spawn(move || jobs.iter().for_each(run))
            .map_err(Error::io("start a thread for", dir))?;
        let mut next = 0;
        for entry in fs::read_dir(dir).map_err(Error::io("list", dir))? {
            let entry = entry.map_err(Error::io("list", dir))?;
            let number = entry.file_name().to_string_lossy().parse::<u64>();
            next = next.max(number.map_or(0, |number| number + 1));
            let _ = queue.send(Job::Delete(entry.path()));
        }
        Ok(Self { dir: dir.to_owned(), next: AtomicU64::new(next), queue })
    }

    /// Takes a directory; one that is not there is fine.
    pub(super) fn take(&self, path: &Path) -> Result<(), Error> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let target = self.dir.join(number.to_string());
        match crate::disk::rename(path, &target) {
            Ok(()) => {
                // The thread lives as long as the sender, that is, as we do.
                let _ = self.queue.send(Job::Delete(target));
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(Error::io("remove", path)(error)),
        }
    }

    /// Waits until all that was taken so far is deleted.
    pub(super) fn wait(&self) {
        let (done, told) = mpsc::channel();
        if self.queue.send(Job::Tell(done)).is_ok() {
            // An error is the thread's end, and there is nothing to wait for then.
            let _ = told.recv();
        }
    }
}

fn run(job: Job) {
    match job {
        Job::Delete(path) => delete(&path),
        // Whoever asked may have gone.
        Job::Tell(done) => drop(done.send(())),
    }
}

fn delete(path: &Path) {
    if let Err(error) = crate::disk::remove_tree(path)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "cannot delete from the trash");
    }
}
