//! Arguments → command → exit code.

#![warn(clippy::indexing_slicing)]

use std::env;
use std::io::{self, IsTerminal, Write};
use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, ExitCode};
use std::time::Duration;

use anyhow::Context;
use bailiwick::clock::{Clock, wall_clock};
use bailiwick::commands::{
    EXIT_CONFIG, EXIT_INTERNAL, EXIT_LEFT, EXIT_PARTLY, Failure, bench, certs, check, demo, dial, explain, health,
    init, journal, ledger, policy, proto, replay, report, run, schema, send, terminal, version,
};
use bailiwick::domain::printable;
use bailiwick::egress::kafka;
use bailiwick::logging::{self, Log, Style, Verbosity};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

/// A streaming edge gateway: scores events where they happen, and lets only aggregates leave.
///
/// Producers stream records to its gRPC endpoint. It works out which laws each record falls under, scores it
/// with an ONNX model on the spot, answers with the score, and releases only cells of enough contributors,
/// under policies written in TOML.
#[derive(Parser)]
#[command(
    version,
    after_help = "Exit codes:
  0   done
  1   failed, or found what was asked for: a failed case, damage, a difference
  2   wrong arguments
  3   send, bench: everything was sent, but not all of it was taken in
  64  the configuration or the policies cannot be used
  70  run: a part of the gateway failed and cannot continue, or its journal's directory cannot be used; start it again
  75  run: stopped, but releases wait for a destination, or a second signal ended the stop; the next start goes on"
)]
struct Cli {
    /// Say more: -v for details, -vv for everything.
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    verbose: u8,
    /// How the log is written [default: for `run` json where stderr is no terminal, else text]
    #[arg(long, value_name = "FORMAT", global = true)]
    log_format: Option<LogFormat>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Clone, Copy, ValueEnum)]
enum LogFormat {
    /// Lines for people.
    Text,
    /// A JSON object on each line.
    Json,
}

#[derive(Subcommand)]
enum Command {
    /// Serve until SIGTERM or SIGINT.
    Run {
        /// The configuration.
        #[arg(short, long, value_name = "FILE", default_value = "gateway.toml")]
        config: PathBuf,
    },
    /// Ask the gateway on this machine whether it is alive, or can take records. For containers and scripts.
    ///
    /// It asks the HTTP port that `[http]` in the configuration names, and prints the answer. When the gateway is not well,
    /// it also prints what is wrong and what to do, if the port speaks plain text.
    #[command(after_help = "Exit codes: 0 the gateway is well, 1 it is not or does not answer, 64 the configuration \
                            cannot be used.")]
    Health {
        /// The configuration. Only [http] and [listen] of it are read.
        #[arg(short, long, value_name = "FILE", default_value = "gateway.toml")]
        config: PathBuf,
        /// Ask at this address instead, in plain text.
        #[arg(long, value_name = "HOST:PORT", conflicts_with = "config")]
        at: Option<String>,
        /// Ask whether it can take records: the journal works, the model is loaded, policies are in force.
        #[arg(long)]
        ready: bool,
    },
    /// Check configuration, policies and models, and say what may leave, to where, under which rule.
    Check {
        /// The configuration.
        #[arg(short, long, value_name = "FILE", default_value = "gateway.toml")]
        config: PathBuf,
        /// Print the report as one JSON object, problems included.
        #[arg(long)]
        json: bool,
    },
    /// Write a minimal deployment into a new directory: a gateway, a stream of events, and the shipped policies.
    Init {
        /// The directory. It is created if it does not exist, and must be empty.
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
    /// Print the .proto of a stream's rows, for producers that send protobuf.
    Proto {
        /// The configuration.
        #[arg(short, long, value_name = "FILE", default_value = "gateway.toml")]
        config: PathBuf,
        /// The stream.
        #[arg(short, long)]
        stream: String,
    },
    /// Send records from files or stdin to a gateway: CSV or JSON lines, plain or gzipped.
    ///
    /// The gateway reads every value by its declared type. Records are sent in numbered requests. To resume an
    /// interrupted send of files, run the same command with the token that it printed: nothing is lost and nothing is
    /// counted twice.
    #[command(
        after_help = "Exit codes: 0 everything was taken in, 1 not everything was sent, 2 wrong arguments, 3 everything was sent, but \
                            not all of it was taken in (or, for a resumed send, this is not known)."
    )]
    Send(SendArgs),
    /// Put load on a gateway that runs, and measure how it answers: rate, latencies, CPU time per record.
    ///
    /// The records are sent over and over, stamped with the moment of sending. A live stream takes them in and counts them:
    /// do it where that disturbs nobody. Messages are encoded before the clock starts. A message that is refused as a whole
    /// ends the load.
    #[command(
        after_help = "Exit codes: 0 everything was taken in, 1 the load ended early, 2 wrong arguments, 3 records were refused.

Examples:
  bailiwick bench -s payments --scores data.csv.gz
  bailiwick bench -s payments --records 1 --calls 64 --in-flight 32 --pid $(pidof bailiwick) data.csv.gz
  bailiwick bench -s payments --records 1 --calls 64 --rate 20000 --for 30 --json data.csv.gz"
    )]
    Bench(bench::Args),
    /// Explain what the policies decide about a record, and why: the evidence of each fact, the regimes that apply, the
    /// verdict and its rules, and where the cells that count it may go.
    ///
    /// Records are JSON objects, one per line, from a file or stdin. They are decoded, checked and decided as in a
    /// running gateway, except for late records: what is too late depends on the records before. With --lsn, the
    /// records are those of an entry of the journal, as they were kept: dropped fields are null. The output holds
    /// codes, declared names and ids of rules, and nothing else of a record, except that it names undeclared fields.
    Explain(ExplainArgs),
    /// Decide the same records under the policies in force and under others, and print the difference: what would newly
    /// be allowed or denied, by which rules, and what may leave.
    ///
    /// Nothing is scored, kept, counted or sent. Both sides are evaluated as of today, at the gateway of the
    /// configuration, with its registries. There is no evidence from network addresses.
    #[command(after_help = "Examples:
  bailiwick replay --against new-policies -s payments -p till-7 data.csv.gz
  bailiwick replay --against policies --against new/extra.toml --journal journal --fail-on-difference")]
    Replay(ReplayArgs),
    /// Work with policies alone, without a gateway.
    Policy {
        #[command(subcommand)]
        task: policy::Task,
    },
    /// Show what a gateway has on disk: what is there, how old it is, for whom, what is damaged, what would be lost.
    Journal {
        #[command(subcommand)]
        task: JournalTask,
    },
    /// Verify a gateway's ledger of what left, show it, prove entries of it to others, and copy it.
    Ledger {
        #[command(subcommand)]
        task: ledger::Task,
    },
    /// Say what left, to where, under which policies, and what was held back: a page for the person who answers for it.
    ///
    /// It comes from the ledger, which is verified first: offline, without the gateway and without secrets. It is HTML that
    /// prints well, or JSON.
    #[command(after_help = "Examples:
  bailiwick report -d journal/ledger > report.html
  bailiwick report --from 2026-11-01 --to 2026-12-01 --bytes-in 20160000000 --price-per-gib 0.08 -c gateway.toml --json")]
    Report(Box<report::Options>),
    /// Make certificates to try TLS with, and show what certificates say.
    Certs {
        #[command(subcommand)]
        task: certs::Task,
    },
    /// Run three gateways (EU, US, IN) on loopback with the examples' data, and sum up what happened.
    Demo {
        /// The folder of the examples.
        #[arg(long, value_name = "DIR", default_value = "examples")]
        examples: PathBuf,
        /// Where released files go.
        #[arg(long, value_name = "DIR", default_value = "released")]
        out: PathBuf,
    },
    /// Print a JSON Schema for editors: of gateway.toml, or of policy files.
    ///
    /// The schema covers keys and types. For everything else, such as names that must be declared elsewhere, run
    /// `check`.
    Schema {
        /// The files.
        of: SchemaOf,
    },
    /// Print completions for a shell.
    #[command(
        after_help = "For bash: bailiwick completions bash > ~/.local/share/bash-completion/completions/bailiwick"
    )]
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Print the man page, or write one for each command into a directory.
    Man {
        /// The directory. It is created if it does not exist.
        #[arg(value_name = "DIR")]
        directory: Option<PathBuf>,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum SchemaOf {
    /// gateway.toml.
    Gateway,
    /// Policy files: classes, regions, regimes, and what a deployment declares.
    Policy,
}

impl From<SchemaOf> for schema::Of {
    fn from(of: SchemaOf) -> Self {
        match of {
            SchemaOf::Gateway => Self::Gateway,
            SchemaOf::Policy => Self::Policy,
        }
    }
}

#[derive(Subcommand)]
enum JournalTask {
    /// Report what is there. This only reads; the gateway may be running.
    Inspect(JournalArgs),
    /// Report what is there, and exit with 1 if anything is damaged or missing.
    Verify(JournalArgs),
    /// Move damaged segments to `damaged/`, and put what can be read of them in their place. This deletes nothing.
    /// The gateway must be stopped.
    Repair(JournalArgs),
}

#[derive(Args)]
struct JournalArgs {
    /// The directory that `[journal] directory` names.
    #[arg(value_name = "DIR", default_value = "journal")]
    directory: PathBuf,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
struct ExplainArgs {
    /// The configuration.
    #[arg(short, long, value_name = "FILE", default_value = "gateway.toml")]
    config: PathBuf,
    /// The stream of the records.
    #[arg(short, long, required_unless_present = "lsn", conflicts_with = "lsn")]
    stream: Option<String>,
    /// The producer that would send them: its declaration is evidence, and its roles make evidence trusted.
    #[arg(short, long, default_value = "", hide_default_value = true, conflicts_with = "lsn")]
    producer: String,
    /// The identity that would send them, as in its certificate: whether it may, by which rule, and as which producer.
    #[arg(long, value_name = "ID", conflicts_with = "lsn")]
    identity: Option<String>,
    /// The network address that they would come from.
    #[arg(long, value_name = "IP")]
    address: Option<IpAddr>,
    /// Print one JSON object for each record.
    #[arg(long)]
    json: bool,
    /// Take the records from this entry of the journal. The gateway may be running. The keys of the configuration open
    /// sealed entries.
    #[arg(long, value_name = "N")]
    lsn: Option<u64>,
    /// The directory of the journal [default: the one in the configuration]
    #[arg(long, value_name = "DIR", requires = "lsn", conflicts_with = "stream")]
    journal: Option<PathBuf>,
    /// Only the record at this position of the entry; the first is 0.
    #[arg(long, value_name = "I", requires = "lsn", conflicts_with = "stream")]
    row: Option<u32>,
    /// A file of JSON objects, one per line. `-` or nothing means stdin.
    #[arg(conflicts_with = "lsn")]
    file: Option<PathBuf>,
}

#[derive(Args)]
struct ReplayArgs {
    /// The configuration, with the policies in force.
    #[arg(short, long, value_name = "FILE", default_value = "gateway.toml")]
    config: PathBuf,
    /// The other policies: a file or a directory, relative to the current directory. Give this option once for each
    /// path that `[gateway] policies` would name.
    #[arg(long, value_name = "PATH", required = true)]
    against: Vec<PathBuf>,
    /// The stream of the files' records.
    #[arg(short, long, requires = "files")]
    stream: Option<String>,
    /// The producer that sent them.
    #[arg(short, long, default_value = "", hide_default_value = true)]
    producer: String,
    /// Also take all records of this journal, as they were kept: dropped fields are null. A journal holds only accepted
    /// records.
    #[arg(long, value_name = "DIR")]
    journal: Option<PathBuf>,
    /// The most bytes of memory for the windows of each of both policies. They are all held until the last record is read.
    #[arg(long, value_name = "BYTES", default_value_t = replay::WINDOWS_BYTES_MAX)]
    windows_bytes_max: usize,
    /// Exit with 1 if anything differs.
    #[arg(long)]
    fail_on_difference: bool,
    /// Files of records: .csv or .jsonl (.gz too). Without files and --journal, only what may leave is compared.
    #[arg(requires = "stream")]
    files: Vec<PathBuf>,
}

#[derive(Args)]
struct SendArgs {
    /// Files to send, in this order. `-` or none means stdin: JSON lines, unless --format says otherwise.
    files: Vec<PathBuf>,
    /// The format of the records [default: by the file's name]
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,
    /// The gateway's endpoint.
    #[arg(long, default_value = "http://127.0.0.1:7400", value_name = "URI")]
    to: String,
    /// The stream of the records.
    #[arg(short, long)]
    stream: String,
    /// The producer's name [with --cert or --token-file: the one that the gateway's policy has for it]
    #[arg(short, long, required_unless_present_any = ["cert", "token_file"])]
    producer: Option<String>,
    /// The most records per request [default: 512, or that of the send to resume]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    batch: Option<u32>,
    /// Do not send records that belong elsewhere to the gateway named in the refusal.
    #[arg(long)]
    no_follow: bool,
    /// Promise that no event time earlier than now will come, so that windows close.
    #[arg(long)]
    complete: bool,
    /// Resume an interrupted send, by the token that it printed. The files, --batch, --to, --stream and --producer must
    /// be the same.
    #[arg(long, value_name = "TOKEN")]
    resume: Option<String>,
    /// Exit with 0 also when records were refused.
    #[arg(long)]
    allow_refused: bool,
    /// Print the summary as one JSON object.
    #[arg(long)]
    json: bool,
    /// How many seconds to wait for a gateway that does not answer before giving up. An attempt to connect may take 3 s.
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    patience: u64,
    #[command(flatten)]
    dial: dial::Args,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// A header, then one record per row.
    Csv,
    /// One JSON object per line.
    Jsonl,
}

impl From<Format> for send::Format {
    fn from(format: Format) -> Self {
        match format {
            Format::Csv => Self::Csv,
            Format::Jsonl => Self::Lines,
        }
    }
}

impl SendArgs {
    fn task(self) -> anyhow::Result<send::Task> {
        let options = send::Options {
            dialer: self.dial.dialer()?,
            endpoint: self.to,
            stream: self.stream,
            producer: self.producer.unwrap_or_default(),
            follow: !self.no_follow,
            batch: self.batch.unwrap_or(BATCH) as usize,
            complete: self.complete,
            epoch: send::epoch_now(),
            patience: Duration::from_secs(self.patience),
        };
        Ok(send::Task {
            files: self.files,
            format: self.format.map(Into::into),
            options,
            is_batch_given: self.batch.is_some(),
            resume: self.resume,
            allow_refused: self.allow_refused,
            json: self.json,
        })
    }
}

/// Records per request, unless something else is asked for.
const BATCH: u32 = 512;

/// Batches are allocated on a connection's thread and freed on a worker's; the benchmark shows the difference.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long threads that hang on a destination may hold up the end of the process.
const LAST_WAIT: Duration = Duration::from_millis(200);
/// The same of clients of Kafka that are being closed: until they are, the process may not end.
const CLIENTS_WAIT: Duration = Duration::from_secs(2);

/// Where this is 1 when a process begins, ONNX Runtime neither collects telemetry nor sends it.
const NO_TELEMETRY: &str = "ORT_DISABLE_TELEMETRY";

/// Makes sure that [`NO_TELEMETRY`] is 1. No process can safely change its own environment, so this one begins anew.
///
/// # Errors
/// When it cannot.
fn without_telemetry() -> io::Result<()> {
    if env::var_os(NO_TELEMETRY).is_some_and(|value| value == "1") {
        return Ok(());
    }
    let mut anew = process::Command::new(env::current_exe()?);
    Err(anew.args(env::args_os().skip(1)).env(NO_TELEMETRY, "1").exec())
}

fn main() -> ExitCode {
    let cli = parse();
    if let Err(error) = without_telemetry() {
        complain(&format!("cannot begin with {NO_TELEMETRY}=1 in the environment: {error}. Set it there"));
        return ExitCode::from(EXIT_INTERNAL);
    }
    let log = log(cli.verbose, cli.log_format, is_server(&cli.command));
    // The load of a benchmark takes one core, and leaves the others to the gateway.
    let mut runtime = match cli.command {
        Command::Bench(_) => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let result = runtime.enable_all().build().context("cannot start").map_err(Failure::from);
    let result = result.and_then(|runtime| {
        let result = runtime.block_on(execute(cli.command, &log.verbosity()));
        runtime.shutdown_timeout(LAST_WAIT);
        result
    });
    kafka::are_closed(CLIENTS_WAIT);
    log.flush(LAST_WAIT);
    let (output, code) = match result {
        Ok(output) => (output, ExitCode::SUCCESS),
        Err(Failure::Found(output)) => (output, ExitCode::FAILURE),
        Err(Failure::Partly(output)) => (output, ExitCode::from(EXIT_PARTLY)),
        Err(Failure::Config) => (String::new(), ExitCode::from(EXIT_CONFIG)),
        Err(Failure::Unusable(output)) => (output, ExitCode::from(EXIT_CONFIG)),
        Err(Failure::Said(message)) => {
            complain(&message);
            (String::new(), ExitCode::from(EXIT_CONFIG))
        }
        Err(Failure::Left(message)) => {
            complain(&message);
            (String::new(), ExitCode::from(EXIT_LEFT))
        }
        Err(Failure::Internal(failure)) => {
            complain(&format!("stopped, because {failure}; start it again"));
            (String::new(), ExitCode::from(EXIT_INTERNAL))
        }
        Err(Failure::Unopened(message)) => {
            complain(&message);
            (String::new(), ExitCode::from(EXIT_INTERNAL))
        }
        Err(Failure::Other(error)) => {
            complain(&format!("{error:#}"));
            (String::new(), ExitCode::FAILURE)
        }
    };
    match print(&output) {
        Ok(()) => code,
        Err(error) => {
            complain(&format!("stdout could not be written: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// The arguments. `--version` says more than clap can know.
fn parse() -> Cli {
    let error = match Cli::try_parse() {
        Ok(cli) => return cli,
        Err(error) => error,
    };
    if error.kind() == ErrorKind::DisplayVersion {
        let is_long = env::args_os().any(|argument| argument == "--version");
        let text = if is_long { version::long() } else { version::short() + "\n" };
        process::exit(i32::from(print(&text).is_err()));
    }
    error.exit()
}

/// Writes what a command has to say. A reader that has seen enough, such as `head`, is no error.
fn print(output: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(printable::lines(output).as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Says on stderr what is wrong. Nothing can be done about a stderr that is closed.
fn complain(message: &str) {
    let _ = writeln!(io::stderr(), "bailiwick: {}", printable::lines(message));
}

async fn execute(command: Command, verbosity: &Verbosity) -> Result<String, Failure> {
    match command {
        Command::Run { config } => run::run(&config, verbosity).await.map(|()| String::new()),
        Command::Health { config, at, ready } => health::health(health::Options { config, at, ready }).await,
        Command::Check { config, json } => check::check(&config, json),
        Command::Proto { config, stream } => proto::proto(&config, &stream),
        Command::Send(args) => send::send(args.task()?).await,
        Command::Bench(args) => bench::bench(args).await,
        Command::Explain(args) => {
            let file = args.file.filter(|file| file.as_os_str() != "-");
            let records = match args.lsn {
                Some(lsn) => explain::From::Journal { directory: args.journal, lsn, row: args.row },
                None => {
                    let stream = args.stream.unwrap_or_default();
                    explain::From::Lines { file, stream, producer: args.producer, identity: args.identity }
                }
            };
            explain::explain(&args.config, &explain::Options { records, address: args.address, json: args.json })
        }
        Command::Replay(args) => {
            let files =
                args.stream.map(|stream| replay::From::Files { files: args.files, stream, producer: args.producer });
            let records = files.into_iter().chain(args.journal.map(replay::From::Journal)).collect();
            let ReplayArgs { config, against, windows_bytes_max, fail_on_difference, .. } = args;
            replay::replay(&config, &replay::Options { against, records, windows_bytes_max, fail_on_difference })
        }
        Command::Policy { task } => policy::run(task),
        Command::Init { directory } => init::init(&directory),
        Command::Schema { of } => Ok(schema::schema(of.into())),
        Command::Completions { shell } => Ok(completions(shell)),
        Command::Man { directory } => man(directory.as_deref()).map_err(Failure::from),
        Command::Journal { task } => {
            let (task, arguments) = match task {
                JournalTask::Inspect(arguments) => (journal::Task::Inspect, arguments),
                JournalTask::Verify(arguments) => (journal::Task::Verify, arguments),
                JournalTask::Repair(arguments) => (journal::Task::Repair, arguments),
            };
            journal::journal(task, &arguments.directory, arguments.json)
        }
        Command::Ledger { task } => ledger::ledger(task).await,
        Command::Report(options) => report::report(*options),
        Command::Certs { task } => certs::certs(task).await,
        Command::Demo { examples, out } => demo::demo(&examples, &out).await,
    }
}

fn completions(shell: clap_complete::Shell) -> String {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "bailiwick", &mut text);
    String::from_utf8_lossy(&text).into_owned()
}

/// The man page for stdout; or the pages of all commands, written into a directory, and where they are.
fn man(directory: Option<&Path>) -> anyhow::Result<String> {
    let Some(directory) = directory else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command()).render(&mut page)?;
        return Ok(String::from_utf8_lossy(&page).into_owned());
    };
    let failed = || format!("cannot write man pages into {}", directory.display());
    std::fs::create_dir_all(directory).with_context(failed)?;
    clap_mangen::generate_to(Cli::command(), directory).with_context(failed)?;
    Ok(format!("the pages are in {}\n", directory.display()))
}

/// Whether a command serves until it is told to stop.
fn is_server(command: &Command) -> bool {
    matches!(command, Command::Run { .. } | Command::Ledger { task: ledger::Task::Witness(_) })
}

fn log(verbose: u8, format: Option<LogFormat>, is_server: bool) -> Log {
    let level = match (verbose, is_server) {
        (0, false) => "warn",
        (0, true) => "info",
        (1, _) => "bailiwick=debug,info",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
    let clock = Clock::start();
    let style = match format {
        Some(LogFormat::Json) => Style::Json,
        // Whatever reads the log of a service is a program.
        None if is_server && !io::stderr().is_terminal() => Style::Json,
        Some(LogFormat::Text) | None => Style::Text { is_colored: terminal::is_colored(&io::stderr()) },
    };
    logging::start(filter, style, move || clock.now(), wall_clock)
}
