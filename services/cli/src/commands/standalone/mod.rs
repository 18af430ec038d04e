//! `weir standalone`: a whole Weir in this process.

mod banner;

use std::path::Path;

use clap::Args;
use tokio::time::Instant;
use weir_config::{Loader, Standalone as Config};
use weir_process::Flags;

use crate::error::{Error, Result};

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
    #[command(flatten)]
    flags: Flags<Config>,
}

impl Standalone {
    /// Runs until a signal ends it. Not for an executor: it brings its own.
    pub(crate) fn run(self) -> Result<u8> {
        let started = Instant::now();
        // Before this process opens anything, which could get the number.
        let ready_file = self.flags.ready_file()?;
        let ephemeral = self
            .ephemeral
            .then(tempfile::tempdir)
            .transpose()
            .map_err(|source| Error::Io { what: "cannot make a temporary folder".to_owned(), source })?;
        let shorthands = |loader| self.shorthands(loader, ephemeral.as_ref().map(tempfile::TempDir::path));
        let Some(loaded) = self.flags.load(shorthands)? else { return Ok(0) };
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
            ready_file.tell(&serde_json::json!({
                "grpc": ready.addr.to_string(),
                "http": ready.http_addr.to_string(),
                "controller": ready.controller_addr.to_string(),
                "clusterId": ready.cluster_id,
                "pid": std::process::id(),
            }));
        });
        match ended {
            Ok(code) => Ok(u8::try_from(code).unwrap_or(1)),
            Err(error) => Err(Error::Failed(error.to_string())),
        }
    }

    /// What the short flags stand for.
    fn shorthands(&self, mut loader: Loader, ephemeral: Option<&Path>) -> Loader {
        if let Some(dir) = ephemeral {
            loader = loader
                .flag("--data-dir", dir.display().to_string())
                .flag("--http-listen", "127.0.0.1:0")
                .flag("--controller-listen", "127.0.0.1:0");
        }
        match self.port {
            Some(port) => loader.flag("--listen", format!("127.0.0.1:{port}")),
            None => loader,
        }
    }
}
