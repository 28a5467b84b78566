//! Owns where the demo happens: the folder to review, the folder of the log, the port. It must never write
//! into the folder that it reviews, unless somebody put the log there.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

use super::super::exit::{Complaint, Exit};
use super::super::settings_flags::{VARIABLES_OF_COMMANDS, load};
use crate::settings::{Environment, Flag, Settings, Sources};

/// Where the demo happens.
pub(super) struct Place {
    /// What is reviewed, absolute and free of links.
    pub(super) folder: PathBuf,
    /// Where the log and the report go, absolute.
    pub(super) data: PathBuf,
    /// Whether the folder of the log was made for this run.
    fresh: bool,
    port: u16,
    /// The port that was wished for and is in use.
    pub(super) busy_port: Option<u16>,
}

impl Place {
    pub(super) fn of(given: &Path) -> Result<Self, Complaint> {
        let folder = reviewed(given)?;
        let environment = Environment::of_process();
        let (data, fresh) = match environment.get("PHOTON_DATA_DIR") {
            Some(data) => (made(Path::new(data))?, false),
            None => (fresh_outside(&folder)?, true),
        };
        let mut place = Self { folder, data, fresh, port: 0, busy_port: None };
        let wished = place.settings_on(None)?.server;
        match TcpListener::bind((wished.host.as_str(), wished.port)) {
            Err(cause) if cause.kind() == ErrorKind::AddrInUse => place.busy_port = Some(wished.port),
            // Any other trouble is the server's to tell.
            Ok(_) | Err(_) => place.port = wished.port,
        }
        Ok(place)
    }

    /// The demo's settings: the environment counts, a `config.toml` in the current folder does not, since it
    /// may well belong to the program that is reviewed.
    pub(super) fn settings(&self) -> Result<Settings, Complaint> {
        self.settings_on(Some(self.port))
    }

    fn settings_on(&self, port: Option<u16>) -> Result<Settings, Complaint> {
        let flag = |key, value: String| Flag { name: "photon demo".to_owned(), key, value };
        let environment = Environment::of_process();
        let mut flags = vec![flag("storage.data_dir", self.data.to_string_lossy().into_owned())];
        flags.extend(port.map(|port| flag("server.port", port.to_string())));
        if environment.get("PHOTON_LOG_LEVEL").is_none() {
            // Log lines would run through what is drawn.
            flags.push(flag("log.level", "error".to_owned()));
        }
        let (config, folder) = (None, self.data.clone());
        load(&Sources { config, flags, environment, other_variables: VARIABLES_OF_COMMANDS, folder })
    }

    /// Where the agents' processes write what they have to say.
    pub(super) fn workers_log(&self) -> PathBuf {
        self.data.join("workers.log")
    }

    pub(super) fn report(&self) -> PathBuf {
        self.data.join("report.md")
    }

    /// Takes the folder of the log away if it was made for this run.
    pub(super) fn discard(&self) {
        if self.fresh {
            // A folder of the system's temporary ones; the system takes it away some day.
            let _ = std::fs::remove_dir_all(&self.data);
        }
    }
}

fn reviewed(given: &Path) -> Result<PathBuf, Complaint> {
    let refused = |reason: &str| {
        let sentence = format!("The folder {} {reason}.", given.display());
        Complaint::new(Exit::USAGE, sentence)
    };
    let folder = given.canonicalize().map_err(|cause| match cause.kind() {
        ErrorKind::NotFound => refused("does not exist"),
        _ => refused("cannot be opened"),
    })?;
    if !folder.is_dir() {
        return Err(refused("is not a folder"));
    }
    std::fs::read_dir(&folder).map_err(|_| refused("cannot be read"))?;
    if folder.to_str().is_none() {
        return Err(refused("has a name that is not UTF-8"));
    }
    Ok(folder)
}

fn made(data: &Path) -> Result<PathBuf, Complaint> {
    let made = std::fs::create_dir_all(data).and_then(|()| data.canonicalize());
    made.map_err(|cause| {
        Complaint::new(Exit::FAILED, format!("The folder {} cannot be made: {cause}.", data.display()))
    })
}

/// A new temporary folder that the review does not see.
fn fresh_outside(folder: &Path) -> Result<PathBuf, Complaint> {
    let parent = folder.parent().map(Path::to_owned);
    let places = [Some(std::env::temp_dir()), Some("/var/tmp".into()), std::env::home_dir(), parent];
    let outside = |place: &PathBuf| place.canonicalize().is_ok_and(|place| !place.starts_with(folder));
    let made = |place: PathBuf| {
        let made = tempfile::Builder::new().prefix("photon-demo-").tempdir_in(place).ok()?;
        made.path().canonicalize().ok().inspect(|_| drop(made.keep()))
    };
    let fresh = places.into_iter().flatten().filter(outside).find_map(made);
    fresh.ok_or_else(|| {
        let sentence = "No folder can be made outside of the reviewed one; name one with PHOTON_DATA_DIR.";
        Complaint::new(Exit::FAILED, sentence)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fresh_folder_lies_outside_of_what_is_reviewed() {
        let temporary = std::env::temp_dir().canonicalize().unwrap();
        let fresh = fresh_outside(&temporary).unwrap();
        assert!(!fresh.starts_with(&temporary), "{fresh:?}");
        std::fs::remove_dir_all(fresh).unwrap();
        assert!(fresh_outside(Path::new("/")).is_err());
    }
}
