//! `weir standalone`: a whole Weir in this process.

mod banner;
mod settings;

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;

use clap::Args;
use tokio::time::Instant;
use weir_config::{Loaded, Loader, Standalone as Config};
use weir_standalone::Ready;

use crate::error::{Error, Result};
use settings::Settings;

/// A whole Weir in one process: broker and controller, its data in one folder
#[derive(Debug, Args)]
#[command(after_help = "\
Every setting is a flag here, a variable (WEIR_DATA_DIR), and a line of the file (data_dir = \"…\").
A first Ctrl-C or SIGTERM stops in order, a second one at once.

Examples:
  $ weir standalone --ephemeral --port 0 --print-config
  $ weir standalone --data-dir ./weir-data --listen 127.0.0.1:9347 --print-config
  $ weir standalone --disk-reserved-bytes 2GiB --log-format json --print-config")]
pub(crate) struct Standalone {
    /// Keep nothing: a temporary data folder, gone at the end, and free ports for HTTP and the controller
    #[arg(long, conflicts_with = "data_dir")]
    ephemeral: bool,
    /// The port of the gRPC API on this machine's loopback; 0 takes a free one (short for --listen 127.0.0.1:PORT)
    #[arg(long, value_name = "PORT", conflicts_with = "listen")]
    port: Option<u16>,
    /// When it serves, write one line of JSON with the addresses to this file descriptor
    #[arg(long, value_name = "FD")]
    ready_fd: Option<u32>,
    /// The configuration file [default: WEIR_CONFIG, else ./weir.toml if it is there]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print the configuration in force, with where each value comes from, and end
    #[arg(long)]
    print_config: bool,
    #[command(flatten)]
    settings: Settings,
}

impl Standalone {
    /// Runs until a signal ends it. Not for an executor: it brings its own.
    pub(crate) fn run(self) -> Result<u8> {
        let started = Instant::now();
        // Before this process opens anything, which could get the number.
        let ready_to = self.ready_fd.map(ready_to).transpose()?;
        let ephemeral = self
            .ephemeral
            .then(tempfile::tempdir)
            .transpose()
            .map_err(|source| Error::Io { what: "cannot make a temporary folder".to_owned(), source })?;
        let loaded = self.load(ephemeral.as_ref().map(tempfile::TempDir::path))?;
        if self.print_config {
            let mut out = std::io::stdout().lock();
            return match write!(out, "{loaded}") {
                Ok(()) => Ok(0),
                Err(_) => Err(Error::OutputClosed),
            };
        }
        let data_dir = loaded.config.common.data_dir.display().to_string();
        let ended = weir_standalone::run(loaded, |ready| {
            let data = match (&ephemeral, ready.founded) {
                (Some(_), _) => "temporary, gone at the end".to_owned(),
                // Who expected records here has named another folder than theirs.
                (None, true) => format!("{data_dir} (new cluster)"),
                (None, false) => data_dir,
            };
            // It asks the server that has just begun, so it does not hold it up.
            tokio::spawn(banner::print(ready.clone(), data, started.elapsed()));
            if let Some(to) = ready_to
                && let Err(error) = tell(to, ready)
            {
                tracing::error!(%error, "cannot say on --ready-fd that it serves: nobody reads there any more");
            }
        });
        match ended {
            Ok(code) => Ok(u8::try_from(code).unwrap_or(1)),
            Err(error) => Err(Error::Failed(error.to_string())),
        }
    }

    fn load(&self, ephemeral: Option<&std::path::Path>) -> Result<Loaded<Config>> {
        let usage = |error: weir_config::Error| Error::Usage(error.to_string());
        let mut loader = Loader::process(self.config.as_deref()).map_err(usage)?;
        if let Some(dir) = ephemeral {
            loader = loader
                .flag("--data-dir", dir.display().to_string())
                .flag("--http-listen", "127.0.0.1:0")
                .flag("--controller-listen", "127.0.0.1:0");
        }
        if let Some(port) = self.port {
            loader = loader.flag("--listen", format!("127.0.0.1:{port}"));
        }
        for (flag, value) in &self.settings.given {
            loader = loader.flag(flag, value);
        }
        loader.load::<Config>().map_err(usage)
    }
}

/// The file behind a descriptor that whoever started this process has given it.
fn ready_to(fd: u32) -> Result<File> {
    OpenOptions::new().write(true).open(format!("/proc/self/fd/{fd}")).map_err(|error| {
        Error::Usage(format!(
            "--ready-fd {fd}: this descriptor is not open for writing ({error}); open it first, as in: weir standalone \
             --ready-fd {fd} {fd}>ready.json"
        ))
    })
}

fn tell(mut to: File, ready: &Ready) -> std::io::Result<()> {
    let line = serde_json::json!({
        "grpc": ready.addr.to_string(),
        "http": ready.http_addr.to_string(),
        "controller": ready.controller_addr.to_string(),
        "clusterId": ready.cluster_id,
        "pid": std::process::id(),
    });
    writeln!(to, "{line}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_that_is_not_open_is_refused() {
        let refused = ready_to(77_777).unwrap_err();
        assert_eq!(refused.exit_code(), crate::error::USAGE);
        assert!(refused.to_string().contains("--ready-fd 77777"), "{refused}");
    }
}
