//! What a command works with: the flags of every command, the server, and the way out.

use std::ffi::OsString;
use std::future::Future;
use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::stdio::stdout;
use tokio::sync::OnceCell;
use tokio::time::Instant;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};
use weir_proto::v1::admin_service_client::AdminServiceClient;
use weir_proto::v1::consumer_service_client::ConsumerServiceClient;
use weir_proto::v1::metadata_service_client::MetadataServiceClient;
use weir_proto::v1::topic_service_client::TopicServiceClient;
use weir_rpc::CONTROLLERS_SILENT;
use weir_runtime::Os;

use crate::address::{self, Address};
use crate::args::Global;
use crate::connect;
use crate::contexts::{self, Contexts};
use crate::error::{self, Error, Result};
use crate::output::{Format, View};
use crate::units;

/// How often is looked whether anybody reads the output still.
const LOOK: Duration = Duration::from_millis(200);
/// How long an answer may take unless `--timeout` says otherwise.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How often `--watch` looks again.
const WATCH: Duration = Duration::from_secs(2);

/// One run of a command.
#[derive(Debug)]
pub(crate) struct Session {
    global: Global,
    os: Arc<dyn Os>,
    /// The connection, and to which of several servers that were named.
    connected: OnceCell<(Channel, Address)>,
    /// The one that is asked since that one failed.
    elsewhere: Mutex<Option<(Channel, Address)>>,
    /// Whether a change has been acknowledged.
    changed: AtomicBool,
    /// Whether it was said that answers are old.
    old_said: AtomicBool,
    begun: Instant,
}

impl Session {
    /// For these flags. Nothing is connected before it is needed.
    pub(crate) fn new(global: Global, os: Arc<dyn Os>) -> Self {
        let begun = Instant::now();
        Self {
            global,
            os,
            connected: OnceCell::new(),
            elsewhere: Mutex::default(),
            changed: AtomicBool::new(false),
            old_said: AtomicBool::new(false),
            begun,
        }
    }

    /// The form of the output.
    pub(crate) fn format(&self) -> Format {
        self.global.output.unwrap_or_default()
    }

    /// Whether somebody said yes beforehand.
    pub(crate) fn yes(&self) -> bool {
        self.global.yes
    }

    /// Whether nothing may be changed.
    pub(crate) fn dry_run(&self) -> bool {
        self.global.dry_run
    }

    /// How talkative to be.
    pub(crate) fn verbose(&self) -> u8 {
        self.global.verbose
    }

    /// How long an answer may take.
    pub(crate) fn timeout(&self) -> Duration {
        self.global.timeout.unwrap_or(TIMEOUT)
    }

    /// Whether the user said how long.
    pub(crate) fn timeout_given(&self) -> bool {
        self.global.timeout.is_some()
    }

    /// The operating system: its clock, its threads for blocking work.
    pub(crate) fn os(&self) -> &Arc<dyn Os> {
        &self.os
    }

    /// The wall clock, in milliseconds since 1970 UTC.
    pub(crate) fn wall_ms(&self) -> i64 {
        self.os.wall_ms()
    }

    /// The file with the contexts.
    pub(crate) fn contexts_path(&self) -> Result<PathBuf> {
        contexts::path(self.global.contexts_file.as_deref(), |name| std::env::var_os(name)).ok_or_else(|| {
            Error::Usage(
                "neither HOME nor XDG_CONFIG_HOME says where contexts are kept; name a file in WEIR_CONTEXTS"
                    .to_owned(),
            )
        })
    }

    /// The contexts there are. Without a home there are none.
    pub(crate) fn contexts(&self) -> Result<Contexts> {
        match self.contexts_path() {
            Ok(path) => Contexts::load(&path),
            Err(_) => Ok(Contexts::default()),
        }
    }

    /// The server that `WEIR_SERVER` names, if it names one.
    pub(crate) fn server_of_environment(&self) -> Result<Option<String>> {
        let environment = std::env::var_os("WEIR_SERVER").map(OsString::into_string).transpose();
        let environment = environment.map_err(|_| {
            Error::Usage("WEIR_SERVER is no text: write HOST:PORT, such as localhost:9347".to_owned())
        })?;
        Ok(environment.filter(|address| !address.is_empty()))
    }

    /// The server's address and why this one: of several the one that is connected to, once there is one.
    pub(crate) fn address(&self) -> Result<Address> {
        match self.elsewhere().as_ref().or_else(|| self.connected.get()) {
            Some((_, answering)) => Ok(answering.clone()),
            None => self.named(),
        }
    }

    fn elsewhere(&self) -> MutexGuard<'_, Option<(Channel, Address)>> {
        // What is in it is whole whoever panicked.
        self.elsewhere.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on with the next of several servers that were named, after this one has failed.
    pub(crate) fn turn_away(&self) -> Result<()> {
        let (named, failed) = (self.named()?, self.address()?);
        let all: Vec<_> = named.each().collect();
        let at = all.iter().position(|one| one.endpoint == failed.endpoint).unwrap_or(0);
        if let Some(next) = all.get((at + 1) % all.len()).filter(|_| all.len() > 1) {
            *self.elsewhere() = Some((connect::lazily(next)?, next.clone()));
        }
        Ok(())
    }

    /// The servers that were named.
    fn named(&self) -> Result<Address> {
        let environment = self.server_of_environment()?;
        let (server, context) = (self.global.server.as_deref(), self.global.context.as_deref());
        // A file that cannot be read is in nobody's way who does not need it.
        let named = environment.is_some() && context.is_none();
        let contexts = if server.is_some() || named { Contexts::default() } else { self.contexts()? };
        address::resolve(server, environment.as_deref(), context, &contexts)
    }

    /// The server's address, said to those who want to know.
    pub(crate) fn say_address(&self) -> Result<Address> {
        let address = self.address()?;
        self.say(1, &format!("server {} (from {})", address.list(), address.source));
        Ok(address)
    }

    /// The connection, made when it is first asked for.
    pub(crate) async fn channel(&self) -> Result<Channel> {
        if let Some((channel, _)) = &*self.elsewhere() {
            return Ok(channel.clone());
        }
        let connect = || async {
            let address = self.say_address()?;
            let (channel, answering) = connect::connect_any(&address, self.timeout()).await?;
            if !address.others.is_empty() {
                self.say(1, &format!("connected to {answering}"));
            }
            Ok::<_, Error>((channel, answering))
        };
        let (channel, _) = self.connected.get_or_try_init(connect).await?;
        Ok(channel.clone())
    }

    /// Topics.
    pub(crate) async fn topics(&self) -> Result<TopicServiceClient<Channel>> {
        let client = TopicServiceClient::new(self.channel().await?);
        Ok(client.max_decoding_message_size(message_bytes_max()))
    }

    /// The map of the cluster.
    pub(crate) async fn metadata(&self) -> Result<MetadataServiceClient<Channel>> {
        let client = MetadataServiceClient::new(self.channel().await?);
        Ok(client.max_decoding_message_size(message_bytes_max()))
    }

    /// Brokers, settings, partitions.
    pub(crate) async fn admin(&self) -> Result<AdminServiceClient<Channel>> {
        let client = AdminServiceClient::new(self.channel().await?);
        Ok(client.max_decoding_message_size(message_bytes_max()))
    }

    /// Reading.
    pub(crate) async fn consumer(&self) -> Result<ConsumerServiceClient<Channel>> {
        let client = ConsumerServiceClient::new(self.channel().await?);
        Ok(client.max_decoding_message_size(message_bytes_max()))
    }

    /// A request with the deadline that the server is told.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.timeout());
        request
    }

    /// Waits for the answer to a call that reads.
    pub(crate) async fn read<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T> {
        self.read_from(&self.address()?, call).await
    }

    /// The same of another server than this command's.
    pub(crate) async fn read_from<T>(
        &self,
        server: &Address,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T> {
        let answer = self.answer(server, call).await;
        answer.map_err(|error| Error::of(&error.of_a_read(), server))
    }

    /// Waits for the answer to a call that changes something, unless this only tries.
    pub(crate) async fn change<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T> {
        if self.dry_run() {
            return self.read(call).await;
        }
        let server = self.address()?;
        let answer = self.answer(&server, call).await.map_err(|error| Error::of(&error, &server))?;
        self.set_changed();
        Ok(answer)
    }

    /// A change has been acknowledged: from now on nothing that fails may say that nothing was applied.
    pub(crate) fn set_changed(&self) {
        self.changed.store(true, Ordering::Relaxed);
    }

    /// The server keeps the deadline, too, and says more about it than we can; ours is for when it is gone.
    async fn answer<T>(
        &self,
        server: &Address,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> weir_client::Result<T> {
        // For people: the answer's type has the name of the call.
        let answer = std::any::type_name::<T>().rsplit("::").next().unwrap_or_default();
        let what = answer.strip_suffix("Response").unwrap_or(answer);
        let (address, limit) = (server.to_string(), self.timeout());
        match tokio::time::timeout(limit, call).await {
            Ok(Ok(answer)) => {
                self.say_age(answer.metadata(), server);
                Ok(answer.into_inner())
            }
            Ok(Err(status)) => Err(weir_client::Error::of_call(what, &address, limit, &status)),
            Err(_) => Err(weir_client::Error::unanswered(what, &address, limit)),
        }
    }

    /// Says once of a server that it has not heard a controller for long: its answers are as old.
    fn say_age(&self, headers: &MetadataMap, server: &Address) {
        let silent = headers.get(CONTROLLERS_SILENT).and_then(|ms| ms.to_str().ok()?.parse().ok());
        let Some(silent) = silent.map(Duration::from_millis) else { return };
        if !self.old_said.swap(true, Ordering::Relaxed) {
            let silent = units::elapsed(silent);
            self.say(
                0,
                &format!(
                    "{server} has not heard a controller for {silent}: what it says of brokers, leaders and settings is \
                     as old as that"
                ),
            );
        }
    }

    /// What is left of the time for one answer since the command began: for what is looked at only to explain.
    pub(crate) fn time_left(&self) -> Duration {
        self.timeout().saturating_sub(self.begun.elapsed())
    }

    /// A name for a change, so that the server knows a repetition.
    pub(crate) fn request_id(&self) -> String {
        format!("{:032x}", self.os.random_u128())
    }

    /// Says something on stderr, if the user wants to hear that much.
    pub(crate) fn say(&self, from_verbosity: u8, words: &str) {
        if self.global.verbose >= from_verbosity {
            // Without a stderr there is nobody to tell.
            let _ = writeln!(io::stderr(), "{words}");
        }
    }

    /// Shows a result.
    pub(crate) fn print(&self, view: &View) -> Result<()> {
        let mut text = Vec::new();
        view.write(&mut text, self.format()).map_err(Error::stdout)?;
        self.print_bytes(&text)
    }

    /// Writes to stdout.
    pub(crate) fn print_bytes(&self, bytes: &[u8]) -> Result<()> {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(Error::stdout) {
            Err(Error::Io { what, source }) if self.changed.load(Ordering::Relaxed) => {
                Err(Error::Partly(format!("it is done, but what came of it is not shown: {what}: {source}")))
            }
            outcome => outcome,
        }
    }

    /// Waits until whoever reads our output has gone; for ever where that cannot be known (a file), or nobody goes.
    pub(crate) async fn output_closed(&self) {
        // Looked at now and then: to have the system tell takes code that the compiler cannot check.
        let mut look = tokio::time::interval(LOOK);
        loop {
            look.tick().await;
            // A closed pipe is an error that is reported unasked.
            let mut polled = [PollFd::from_borrowed_fd(stdout(), PollFlags::empty())];
            let ready = poll(&mut polled, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }));
            if ready.is_ok() && polled.iter().any(|fd| fd.revents().contains(PollFlags::ERR)) {
                return;
            }
        }
    }

    /// Shows a result, with `--watch` again and again until Ctrl-C. A failure is shown in its place, and looking goes
    /// on: a server that restarts comes back. What can only have been mistyped ends it.
    pub(crate) async fn show<F>(&self, mut look: impl FnMut() -> F) -> Result<()>
    where
        F: Future<Output = Result<View>>,
    {
        let mut first = true;
        loop {
            let seen = match look().await {
                Err(error) if !self.global.watch || hopeless(&error, first) => return Err(error),
                seen => seen,
            };
            if self.global.watch && io::stdout().is_terminal() {
                // To the upper left corner, and clear from there.
                self.print_bytes(b"\x1b[H\x1b[J")?;
            }
            match seen {
                Ok(view) => {
                    self.print(&view)?;
                    first = false;
                }
                Err(error) => self.say_failure(&error),
            }
            if !self.global.watch {
                return Ok(());
            }
            tokio::select! {
                () = tokio::time::sleep(WATCH) => {}
                () = self.output_closed() => return Err(Error::OutputClosed),
            }
        }
    }

    /// Says on stderr what failed and is tried again.
    fn say_failure(&self, error: &Error) {
        let json = self.format() == Format::Json;
        let mut words = Vec::new();
        // Into memory it never fails; without a stderr there is nobody to tell.
        let _ = error.write(&mut words, json, self.verbose() > 0);
        if !json {
            words.extend_from_slice(b"       looking again every 2 s; Ctrl-C ends\n");
        }
        let _ = io::stderr().write_all(&words);
    }
}

/// Whether looking again cannot help: the command line is wrong, or nothing it names was ever there.
fn hopeless(error: &Error, first: bool) -> bool {
    // Not found, denied.
    let of_the_name = matches!(error.exit_code(), 3 | 4);
    error.exit_code() == error::USAGE || (first && of_the_name)
}

fn message_bytes_max() -> usize {
    usize::try_from(connect::MESSAGE_BYTES_MAX).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::VecDeque;

    use super::*;

    /// What is left of what is seen, and how the watching ended.
    async fn watched(seen: impl IntoIterator<Item = Result<View>>) -> (usize, Result<()>) {
        let mut global = Global::default();
        global.watch = true;
        global.output = Some(Format::Json);
        let session = Session::new(global, Arc::new(weir_runtime::RealOs::new(1).unwrap()));
        let seen = RefCell::new(seen.into_iter().collect::<VecDeque<_>>());
        let end = || Err(Error::Usage("the end".to_owned()));
        let ended = session.show(|| async { seen.borrow_mut().pop_front().unwrap_or_else(end) }).await;
        (seen.into_inner().len(), ended)
    }

    fn unreachable() -> Result<View> {
        Err(Error::Unreachable("no Weir answers".to_owned()))
    }

    fn gone() -> Result<View> {
        Err(Error::NotFound("there is no topic".to_owned()))
    }

    #[tokio::test(start_paused = true)]
    async fn watching_goes_on_past_failures() {
        let (left, ended) = watched([unreachable(), Ok(View::default()), gone(), unreachable()]).await;
        assert_eq!((left, ended.unwrap_err().to_string()), (0, "the end".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn watching_what_was_never_there_ends() {
        let (left, ended) = watched([unreachable(), gone(), Ok(View::default())]).await;
        assert_eq!((left, ended.unwrap_err().exit_code()), (1, 3));
    }
}
