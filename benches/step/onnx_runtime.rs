//! onnxruntime beside us: `benches/onnx_runtime.py` as a child that computes when it is told to, so that both take turns.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::Seconds;

/// The child, with its networks ready to run.
pub(super) struct OnnxRuntime {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl OnnxRuntime {
    /// Starts it where this Python has all that it needs.
    pub(super) fn start(python: &str, threads: usize) -> Result<OnnxRuntime> {
        let modules = "import diffusers, onnx, onnxruntime, onnxscript, torch";
        let check = Command::new(python).args(["-c", modules]).output().with_context(|| python.to_owned())?;
        let stderr = String::from_utf8_lossy(&check.stderr);
        ensure!(check.status.success(), "{python}: {}", stderr.lines().last().unwrap_or_default());
        println!("making the same networks for onnxruntime (minutes)");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("onnx_runtime.py");
        let mut command = Command::new(python);
        command.arg(script).arg(threads.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn()?;
        let input = child.stdin.take().context("a pipe to the child")?;
        let output = BufReader::new(child.stdout.take().context("a pipe from the child")?);
        let mut started = OnnxRuntime { child, input, output };
        let ready = started.line()?;
        let version =
            ready.strip_prefix("ready ").with_context(|| format!("{python} ended: run the script by hand"))?;
        println!("onnxruntime {version}, f32, {threads} threads");
        Ok(started)
    }

    /// Runs a step and a decode.
    pub(super) fn round(&mut self) -> Result<[Seconds; 2]> {
        Ok([self.run("step")?, self.run("decode")?])
    }

    fn run(&mut self, what: &str) -> Result<Seconds> {
        writeln!(self.input, "{what}")?;
        let line = self.line()?;
        let mut numbers = line.split(' ').map(str::parse);
        let mut number = || numbers.next().with_context(|| format!("onnxruntime, {what}: {line:?}"));
        Ok(Seconds { wall: number()??, cpu: number()?? })
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }
}

impl Drop for OnnxRuntime {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
