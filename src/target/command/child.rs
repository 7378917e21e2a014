//! One verb as a child process: its process group, its request, and its bounded output.

use std::collections::VecDeque;
use std::io::{Error as IoError, ErrorKind};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::task::JoinHandle;

use crate::pipeline::{PieceReader, RunningGroup, TAIL};

/// The most bytes of an answer, and of a line of `logs`.
const LARGEST_ANSWER: u64 = 16 << 20;

/// How long the rest of the output is read after the program has ended. A process that the program has
/// started and left running may keep the pipes open.
const LAST_OUTPUT: Duration = Duration::from_secs(2);

/// A program that carries out a verb. Its process group is killed when this value is dropped before the
/// program has ended.
pub struct VerbProcess {
    child: Child,
    group: RunningGroup,
    request: Vec<u8>,
}

/// How a program ended.
pub struct VerbEnd {
    /// Its status.
    pub status: ExitStatus,
    /// Its standard output.
    pub answer: Vec<u8>,
    /// The end of its standard error.
    pub errors: String,
}

/// The last pieces of standard error.
#[derive(Default)]
struct LastPieces(VecDeque<Vec<u8>>);

impl LastPieces {
    async fn read(&mut self, pipe: Option<impl AsyncRead + Unpin>) {
        let Some(pipe) = pipe else { return };
        let mut pieces = PieceReader::new(pipe, Vec::new());
        while let Some(piece) = pieces.read_piece().await {
            if self.0.len() == TAIL {
                self.0.pop_front();
            }
            self.0.push_back(piece);
        }
    }

    fn text(self) -> String {
        let bytes: Vec<u8> = self.0.into_iter().flatten().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl VerbProcess {
    /// Starts a program that receives this request.
    pub fn start(mut command: Command, request: String) -> std::io::Result<Self> {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C interrupts this program, which ends a verb itself.
            .process_group(0)
            .kill_on_drop(true);
        let child = command.spawn()?;
        Ok(Self {
            group: RunningGroup::of(&child),
            child,
            request: request.into_bytes(),
        })
    }

    /// Reads the output of the program until it has ended.
    pub async fn end(mut self) -> std::io::Result<VerbEnd> {
        let mut answer = Vec::new();
        let output = self.child.stdout.take();
        let reading = read_answer(output, &mut answer);
        let (status, errors) = self.wait(reading).await?;
        Ok(VerbEnd {
            status,
            answer,
            errors,
        })
    }

    /// Reads the output of the program line by line.
    pub fn lines(mut self) -> VerbLines {
        let output = self.child.stdout.take().map(BufReader::new);
        let (input, stderr) = (self.child.stdin.take(), self.child.stderr.take());
        let request = std::mem::take(&mut self.request);
        // The task ends with the pipes. A full pipe would stop the program.
        let errors = tokio::spawn(async move {
            let mut errors = LastPieces::default();
            tokio::join!(errors.read(stderr), write(input, &request));
            errors
        });
        VerbLines {
            process: self,
            output,
            errors,
        }
    }

    /// Writes the request, and waits for the end of the program while `reading` takes its output. An error
    /// of `reading` ends the program.
    async fn wait(
        &mut self,
        reading: impl Future<Output = std::io::Result<()>>,
    ) -> std::io::Result<(ExitStatus, String)> {
        let (input, stderr) = (self.child.stdin.take(), self.child.stderr.take());
        let mut errors = LastPieces::default();
        let status = {
            let exchange = async {
                let work = tokio::join!(reading, errors.read(stderr), write(input, &self.request));
                work.0
            };
            tokio::pin!(exchange);
            let mut has_read = false;
            let status = loop {
                tokio::select! {
                    status = self.child.wait() => break status?,
                    read = &mut exchange, if !has_read => {
                        read?;
                        has_read = true;
                    }
                }
            };
            if !has_read && let Ok(read) = tokio::time::timeout(LAST_OUTPUT, exchange).await {
                read?;
            }
            status
        };
        // Processes that the program has left running are its own affair.
        self.group.release();
        Ok((status, errors.text()))
    }
}

/// The lines that a running program prints. The program is killed when this value is dropped before its end.
pub struct VerbLines {
    process: VerbProcess,
    output: Option<BufReader<ChildStdout>>,
    errors: JoinHandle<LastPieces>,
}

impl VerbLines {
    /// The next line with its end. None at the end of the output.
    pub async fn next(&mut self) -> std::io::Result<Option<Vec<u8>>> {
        let Some(output) = &mut self.output else {
            return Ok(None);
        };
        let mut line = Vec::new();
        let mut bounded = output.take(LARGEST_ANSWER + 1);
        bounded.read_until(b'\n', &mut line).await?;
        if line.len() as u64 > LARGEST_ANSWER {
            return Err(too_large());
        }
        Ok((!line.is_empty()).then_some(line))
    }

    /// Waits for the end of the program, whose output has ended.
    pub async fn end(mut self) -> std::io::Result<VerbEnd> {
        let status = self.process.child.wait().await?;
        self.process.group.release();
        let errors = tokio::time::timeout(LAST_OUTPUT, &mut self.errors).await;
        Ok(VerbEnd {
            status,
            answer: Vec::new(),
            errors: errors.map_or(String::new(), |read| {
                read.map_or_else(|_| String::new(), LastPieces::text)
            }),
        })
    }
}

/// A program that does not read its request may still answer.
async fn write(input: Option<ChildStdin>, request: &[u8]) {
    if let Some(mut input) = input {
        let _ = input.write_all(request).await;
    }
}

async fn read_answer(output: Option<ChildStdout>, answer: &mut Vec<u8>) -> std::io::Result<()> {
    let Some(output) = output else { return Ok(()) };
    output.take(LARGEST_ANSWER + 1).read_to_end(answer).await?;
    if answer.len() as u64 > LARGEST_ANSWER {
        return Err(too_large());
    }
    Ok(())
}

fn too_large() -> IoError {
    let limit = LARGEST_ANSWER >> 20;
    IoError::new(
        ErrorKind::FileTooLarge,
        format!("the answer has more than {limit} MiB"),
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::process::Command;

    use super::VerbProcess;
    use crate::pipeline::TAIL;

    fn shell(script: &str, request: &str) -> VerbProcess {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        VerbProcess::start(command, request.into()).unwrap()
    }

    #[tokio::test]
    async fn a_program_that_is_given_up_leaves_no_process() {
        let folder = tempfile::tempdir().unwrap();
        let (started, late) = (folder.path().join("started"), folder.path().join("late"));
        let (name, after) = (started.display(), late.display());
        // The shell waits for its child, which does the work.
        let script = format!("(touch '{name}'; sleep 1; touch '{after}') & wait");
        let ending = shell(&script, "").end();
        let begun = async {
            while !started.exists() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            _ = ending => panic!("the program has ended"),
            () = begun => {}
        }
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert!(!late.exists(), "the child of the program still works");
    }

    #[tokio::test]
    async fn a_process_that_the_program_leaves_running_does_not_delay_its_answer() {
        let folder = tempfile::tempdir().unwrap();
        let late = folder.path().join("late");
        let script = format!("(sleep 4; touch '{}') & echo '{{}}'", late.display());
        let end = shell(&script, "").end().await.unwrap();
        assert_eq!(end.answer, b"{}\n");
        assert!(
            !late.exists(),
            "the answer has waited for the other process"
        );
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert!(late.exists(), "the other process was killed");
    }

    #[tokio::test]
    async fn output_is_bounded_and_a_large_request_is_read_beside_it() {
        let endless = shell("yes", "").end().await;
        let error = endless.err().unwrap().to_string();
        assert!(error.contains("more than 16 MiB"), "{error}");
        let script = "i=0; while [ $i -lt 200 ]; do i=$((i+1)); echo \"line $i\" >&2; done; \
                      head -c 300000 /dev/zero; cat; exit 3";
        let request = "x".repeat(300_000);
        let end = shell(script, &request).end().await.unwrap();
        assert_eq!(end.status.code(), Some(3));
        assert_eq!(end.answer.len(), 600_000);
        let lines: Vec<&str> = end.errors.lines().collect();
        assert_eq!((lines.len(), lines[TAIL - 1]), (TAIL, "line 200"));
    }

    #[tokio::test]
    async fn lines_are_read_beside_many_errors_and_the_status_is_known() {
        // More errors than a pipe holds.
        let script = "head -c 200000 /dev/zero >&2; echo one; echo two; echo broken >&2; exit 4";
        let mut lines = shell(script, "").lines();
        let mut taken = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            taken.push(String::from_utf8(line).unwrap());
        }
        let end = lines.end().await.unwrap();
        assert_eq!(taken, ["one\n", "two\n"]);
        assert_eq!(end.status.code(), Some(4));
        assert!(end.errors.ends_with("broken\n"), "{}", end.errors);
    }
}
