//! What people do to names while a process has the files open: take them away, put them back, put others there.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use super::super::Directory;
use super::{Disk, Node, Sim, What, apply};

/// Names that were taken away.
#[derive(Debug)]
pub(crate) struct Hidden(Vec<(PathBuf, Node)>);

impl Sim {
    /// Takes a name away, of a file or of a directory with all that is in it, while whoever has it open goes on.
    pub(crate) fn hide(&self, path: &Path) -> Hidden {
        let mut disk = self.disk();
        disk.settle_names();
        let names: Vec<_> = disk.names.iter().filter(|(name, _)| name.starts_with(path)).collect();
        let names: Vec<_> = names.into_iter().map(|(name, node)| (name.clone(), *node)).collect();
        for (name, _) in &names {
            disk.names.remove(name);
            disk.durable_names.remove(name);
        }
        Hidden(names)
    }

    /// Gives back what was hidden, in place of what is there now.
    pub(crate) fn put_back(&self, hidden: Hidden) {
        let Some((first, _)) = hidden.0.first() else { return };
        drop(self.hide(first));
        let mut disk = self.disk();
        for (name, node) in hidden.0 {
            disk.names.insert(name.clone(), node);
            disk.durable_names.insert(name, node);
        }
    }

    /// The names of the directories in a directory, in order.
    pub(crate) fn folders(&self, directory: &Path) -> Vec<String> {
        let disk = self.disk();
        let inside = disk
            .names
            .iter()
            .filter(|(path, node)| path.parent() == Some(directory) && matches!(node, Node::Directory(_)));
        inside.map(|(path, _)| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
    }

    /// Whether a process holds the lock.
    pub(crate) fn is_held(&self) -> bool {
        self.disk().lock.as_ref().is_some_and(|lock| lock.load(Ordering::Relaxed))
    }

    /// Makes an empty directory, durably.
    pub(crate) fn make_directory(&self, path: &Path) {
        self.disk().make_directory(path);
    }

    /// The next operation panics, as a bug would.
    pub(crate) fn panic_next(&self) {
        self.disk().panics = true;
    }
}

impl Disk {
    /// Everything that was created, renamed and removed is durable.
    fn settle_names(&mut self) {
        for change in std::mem::take(&mut self.changes) {
            apply(&mut self.durable_names, &change.what);
        }
    }

    pub(super) fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        self.operate()?;
        if self.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let directory = self.new_directory();
        self.change(What::Set(path.to_owned(), directory));
        Ok(())
    }

    pub(super) fn remove_dir(&mut self, path: &Path) -> io::Result<()> {
        self.operate()?;
        if !matches!(self.names.get(path), Some(Node::Directory(_))) {
            return Err(io::ErrorKind::NotADirectory.into());
        }
        if self.names.keys().any(|name| name != path && name.starts_with(path)) {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        self.change(What::Remove(path.to_owned()));
        Ok(())
    }

    /// Makes a directory, unless it is there.
    pub(super) fn make_directory(&mut self, path: &Path) {
        let node = self.names.get(path).copied().unwrap_or_else(|| self.new_directory());
        self.names.insert(path.to_owned(), node);
        self.durable_names.insert(path.to_owned(), node);
    }

    pub(super) fn new_directory(&mut self) -> Node {
        self.directories += 1;
        Node::Directory(self.directories)
    }
}

pub(super) struct OpenDirectory {
    disk: Arc<Mutex<Disk>>,
    id: u64,
}

impl OpenDirectory {
    pub(super) fn new(disk: &Arc<Mutex<Disk>>, id: u64) -> Self {
        Self { disk: Arc::clone(disk), id }
    }
}

impl Directory for OpenDirectory {
    fn is_at(&self, path: &Path) -> io::Result<bool> {
        let mut disk = self.disk.lock().unwrap();
        disk.operate()?;
        Ok(disk.names.get(path) == Some(&Node::Directory(self.id)))
    }
}
