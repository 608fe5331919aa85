//! How processes of one command are asked for: which file it is, what its requests have in common, and whom to ask.

use std::borrow::Cow;
use std::cell::RefCell;
use std::ffi::{CString, OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use super::client::{NotAsked, Process, SpawnerClient};
use super::supervisor::{NoConnection, Spawner};
use super::wire::{self, MAX_PACKET_BYTES};
use super::{ExecSettings, find_program};
use crate::error::{CallError, EnvironmentFault, StartError, StartStep};

/// Starts processes of one command by the spawner. One per thread.
#[derive(Debug)]
pub(crate) struct Launcher {
    settings: Arc<ExecSettings>,
    spawner: Arc<Spawner>,
    client: RefCell<Rc<SpawnerClient>>,
    directory: PathBuf,
    /// Variables of every process: passed on, then set.
    environment: Vec<(OsString, OsString)>,
    /// Kept until it could not be started.
    program: RefCell<Option<Rc<Program>>>,
}

/// The program, once it was found.
#[derive(Debug)]
pub(crate) struct Program {
    path: PathBuf,
    /// What is the same in the requests of all its processes.
    request: Vec<u8>,
}

/// A process that was asked for.
#[derive(Debug)]
pub(crate) struct Launched<T> {
    pub(crate) process: Process,
    /// This process's ends of what it got as standard input, output and error.
    pub(crate) ours: T,
    /// Dropped, it would kill the process.
    pub(crate) client: Rc<SpawnerClient>,
}

impl Launcher {
    /// Connects to the spawner; inside the runtime of the thread. Relative paths are taken from the working directory of this moment, and so
    /// are the values of `pass_environment`.
    pub(crate) fn new(settings: Arc<ExecSettings>, spawner: Arc<Spawner>) -> io::Result<Self> {
        let client = Rc::new(spawner.connect()?);
        let directory = std::path::absolute(&settings.directory)?;
        let mut environment: Vec<(OsString, OsString)> =
            settings.pass_environment.iter().filter_map(|name| Some((name.into(), std::env::var_os(name)?))).collect();
        for (name, value) in &settings.environment {
            environment.retain(|(other, _)| other != name);
            environment.push((name.clone(), value.clone()));
        }
        Ok(Self {
            settings,
            spawner,
            client: RefCell::new(client),
            directory,
            environment,
            program: RefCell::new(None),
        })
    }

    /// Whether the operator has set this variable, or has it passed on.
    pub(crate) fn sets(&self, variable: &str) -> Option<&OsStr> {
        self.environment.iter().find(|(name, _)| name == variable).map(|(_, value)| value.as_os_str())
    }

    /// The working directory of the processes.
    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    /// The connection to a living spawner, a new one where it has to be.
    async fn client(&self) -> Result<Rc<SpawnerClient>, EnvironmentFault> {
        loop {
            let client = Rc::clone(&self.client.borrow());
            if !client.is_lost() {
                return Ok(client);
            }
            match self.spawner.try_connect() {
                Ok(client) => {
                    self.client.replace(Rc::new(client));
                }
                Err(NoConnection::RestingUntil(then)) => tokio::time::sleep_until(then.into()).await,
                Err(NoConnection::Failed(error)) => return Err(EnvironmentFault::NoSpawner(error)),
            }
        }
    }

    /// The program; looked for by the first call, and by the one after a failed start.
    pub(crate) fn program(&self) -> Result<Rc<Program>, StartError> {
        if let Some(known) = &*self.program.borrow() {
            return Ok(Rc::clone(known));
        }
        let settings = &*self.settings;
        let command = settings.command.first().map_or(OsStr::new(""), |command| command);
        let path = find_program(command, self.sets("PATH"), &self.directory)?;
        let arguments: Result<Vec<CString>, _> = settings.command.iter().map(|argument| c_string(argument)).collect();
        let request = wire::encode_start(&wire::Common {
            grace: settings.grace,
            session: settings.session,
            limits: settings.limits,
            user: settings.user,
            group: settings.group,
            groups: &settings.groups,
            program: &c_string(path.as_os_str())?,
            directory: &c_string(self.directory.as_os_str())?,
            arguments: &arguments?,
        });
        let program = Rc::new(Program { path, request });
        self.program.replace(Some(Rc::clone(&program)));
        Ok(program)
    }

    /// A whole request, but for its number. These variables win over those of every process.
    pub(crate) fn request<'v>(
        &self,
        program: &Program,
        variables: impl Iterator<Item = (&'v str, Cow<'v, [u8]>)>,
    ) -> Result<Vec<u8>, StartError> {
        let mut request = Vec::with_capacity(program.request.len() + 2048);
        request.extend_from_slice(&program.request);
        let mut overridden = vec![false; self.environment.len()];
        for (name, value) in variables {
            for ((other, _), overridden) in self.environment.iter().zip(&mut overridden) {
                *overridden |= other == name;
            }
            push_variable(&mut request, name.as_bytes(), &value)?;
        }
        for ((name, value), _) in self.environment.iter().zip(overridden).filter(|(_, overridden)| !overridden) {
            push_variable(&mut request, name.as_bytes(), value.as_bytes())?;
        }
        if request.len() > MAX_PACKET_BYTES {
            return Err(StartError::TooLarge { bytes: request.len(), max_bytes: MAX_PACKET_BYTES });
        }
        Ok(request)
    }

    /// Asks a living spawner for the process. `stdio` makes this process's ends of its standard input, output and error, and the other ends.
    pub(crate) async fn launch<T>(
        &self,
        mut request: Vec<u8>,
        mut stdio: impl FnMut() -> io::Result<(T, [OwnedFd; 3])>,
    ) -> Result<Launched<T>, CallError> {
        loop {
            let client = self.client().await?;
            match ask(&client, &mut request, &mut stdio).await {
                Ok((process, ours)) => return Ok(Launched { process, ours, client }),
                // Nothing was started yet, so nothing can be started twice.
                Err(NotAsked::SpawnerDied) => {}
                Err(NotAsked::System { what, source }) => {
                    return Err(EnvironmentFault::System { what, source }.into());
                }
            }
        }
    }

    /// Why a process never became the program; in words where they are known.
    pub(crate) fn not_started(&self, program: &Program, step: StartStep, errno: i32) -> StartError {
        // The next call looks for the program again: it may have been moved, or be there by then.
        self.program.take();
        if step == StartStep::Execute
            && let Err(error) = find_program(program.path.as_os_str(), None, Path::new("/"))
        {
            return error.into();
        }
        StartError::Step { program: program.path.clone(), step, source: io::Error::from_raw_os_error(errno) }
    }
}

/// Asks this spawner for a process.
async fn ask<T>(
    client: &SpawnerClient,
    request: &mut [u8],
    stdio: &mut impl FnMut() -> io::Result<(T, [OwnedFd; 3])>,
) -> Result<(Process, T), NotAsked> {
    let turn = client.turn().await?;
    let (ours, theirs) = stdio().map_err(|source| NotAsked::System { what: "pipes for a process", source })?;
    let process = turn.start(request, theirs).await?;
    Ok((process, ours))
}

fn push_variable(request: &mut Vec<u8>, name: &[u8], value: &[u8]) -> Result<(), StartError> {
    if memchr::memchr(0, name).or(memchr::memchr(0, value)).is_some() {
        return Err(StartError::Nul(format!("variable {}", String::from_utf8_lossy(name))));
    }
    wire::push_variable(request, name, value);
    Ok(())
}

fn c_string(text: &OsStr) -> Result<CString, StartError> {
    CString::new(text.as_bytes()).map_err(|_| StartError::Nul(format!("{:?}", text.display().to_string())))
}
