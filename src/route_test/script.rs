//! Tests in Rhai, `*.test.rhai`, for what a table says badly.
//!
//! A test runs on a thread of its own. What it asks the scripts is asked on the thread that runs the tests, so that the
//! limits of a test count its own work alone. What a failed one asked last is its trace.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use parking_lot::Mutex;

use super::expect::Mismatch;
use super::language::{Context, Thrown, register, transports};
use super::report::Failure;
use super::table::{Ask, Owner};
use crate::names::TransportName;
use crate::route::{Facts, ScriptProblem, ScriptSet, Step, TestError, TestScript, TestSource};

/// A file of tests in Rhai, compiled.
pub(super) struct Script {
    compiled: TestScript,
    file: Arc<str>,
    calls: Sender<Call>,
    received: Receiver<Call>,
    /// What the last question was answered.
    answered: Arc<Mutex<Vec<Step>>>,
    /// Names that scripts may return in this file's tests; `None` for those of the configuration.
    pub(super) transports: Option<Vec<TransportName>>,
}

/// What comes from a test that runs.
pub(super) enum Call {
    /// It asks the scripts.
    Question(Question),
    /// It is over.
    Done,
}

/// What a test asks the scripts.
pub(super) struct Question {
    /// About which delivery.
    pub(super) facts: Arc<Facts>,
    /// Whom.
    pub(super) ask: Ask,
    /// Where the answer goes.
    pub(super) answer: Sender<Vec<Step>>,
}

impl Script {
    /// Compiles a file.
    pub(super) fn compile(
        set: &ScriptSet,
        test: &TestSource,
        owner: &Owner,
    ) -> Result<Self, Vec<ScriptProblem>> {
        let (calls, received) = channel();
        let answered = Arc::new(Mutex::new(Vec::new()));
        let context = Context::new(set, owner.clone(), calls.clone(), answered.clone());
        let compiled = TestScript::compile(set, test, |engine| register(engine, &context))?;
        let transports =
            transports(&compiled).map_err(|message| vec![ScriptProblem::whole(&*test.file, message)])?;
        Ok(Self { compiled, file: test.file.clone(), calls, received, answered, transports })
    }

    /// The tests with their lines.
    pub(super) fn tests(&self) -> Vec<(String, u32)> {
        self.compiled.tests()
    }

    /// Runs the test of a name and line; `ask` answers what it asks, or nothing more when the time is over.
    pub(super) fn run(
        &self,
        name: &str,
        line: u32,
        mut ask: impl FnMut(&Question) -> Option<Vec<Step>>,
    ) -> Result<(), Box<Failure>> {
        self.answered.lock().clear();
        let (script, done) = (&self.compiled, self.calls.clone());
        let ran = std::thread::scope(|scope| {
            let test = std::thread::Builder::new().name("route-test".to_owned());
            let test = test.spawn_scoped(scope, move || {
                let ran = script.call(name);
                // Whoever started the test waits for this.
                let _ = done.send(Call::Done);
                ran
            });
            let Ok(test) = test else { return Err(None) };
            while let Ok(Call::Question(question)) = self.received.recv() {
                if let Some(steps) = ask(&question) {
                    // It waits for the answer, which is what it asked for.
                    let _ = question.answer.send(steps);
                }
            }
            test.join().map_or(Err(None), |ran| ran.map_err(Some))
        });
        ran.map_err(|error| match error {
            Some(error) => Box::new(self.failed(*error, line)),
            None => {
                let message = Some("the test could not be run: no thread for it".to_owned());
                Box::new(Failure { file: self.file.clone(), line, message, ..Failure::default() })
            }
        })
    }

    fn failed(&self, error: TestError, line: u32) -> Failure {
        let place = error.error;
        let trace = std::mem::take(&mut *self.answered.lock());
        // A place that is not known is the test as a whole.
        let (file, line) = place.line.map_or_else(|| (self.file.clone(), line), |line| (place.file, line));
        let failure = Failure { file, line, column: place.column, trace, ..Failure::default() };
        match error.thrown.and_then(rhai::Dynamic::try_cast::<Thrown>) {
            Some(Thrown { message, mismatch }) => match mismatch {
                Some(Mismatch { expected, got, hint, diff }) => {
                    Failure { message, expected: Some(expected), got: Some(got), hint, diff, ..failure }
                }
                None => Failure { message, ..failure },
            },
            None => Failure { message: Some(place.message), hint: place.hint, ..failure },
        }
    }
}
