//! Coverage: which lines and branches of scripts and modules no test reached.
//!
//! What there is comes from the syntax tree: every statement and every arm of a `switch` stands on a line, and a fork is
//! where the way parts: `if`, `switch`, a loop that may not be entered, `catch`, a closure that may not be called. What
//! was reached comes from evaluations under the debugger ([`Way`]). Most branches begin with a statement, and that tells
//! them apart. The `else` that nobody wrote has none: it was taken when, after the condition, the evaluation went on
//! somewhere outside of it. `&&`, `||` and `??` are not counted as forks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rhai::{AST, ASTNode, Expr, Position, Stmt, StmtBlock};
use serde::Serialize;

use crate::route::{ScriptSet, Visit, Way};

/// Line and column.
type Place = (u32, u32);

/// What tests reached of all scripts and modules of a set.
#[derive(Debug, Clone, Default)]
pub(super) struct Recorder {
    files: BTreeMap<Arc<str>, File>,
}

/// One script or module: what is in it, how often it was reached.
#[derive(Debug, Clone, Default)]
struct File {
    /// Line of each statement, how often it was reached.
    statements: BTreeMap<Place, u64>,
    forks: BTreeMap<Place, Fork>,
    /// Forks whose branch begins at a place: the fork, and which branch.
    entries: BTreeMap<Place, Vec<(Place, usize)>>,
}

#[derive(Debug, Clone, Default)]
struct Fork {
    /// Each with how often it was taken.
    branches: Vec<(Branch, u64)>,
    /// Where the code of each begins; a branch without code was taken when no other was.
    entries: Vec<Option<Place>>,
    /// Everything in the condition: while the evaluation is there, the fork is still open.
    condition: BTreeSet<Place>,
}

impl Fork {
    /// The walk comes to some forks more than once.
    fn add(&mut self, branch: Branch, entry: Option<Place>) {
        let known = self.branches.iter().zip(&self.entries).any(|((b, _), e)| *b == branch && *e == entry);
        if !known {
            self.branches.push((branch, 0));
            self.entries.push(entry);
        }
    }

    /// The branch without code, by its index.
    fn silent(&self) -> Option<usize> {
        self.entries.iter().position(Option::is_none)
    }
}

/// What would have to happen for a branch to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Branch {
    /// The condition of an `if` holds.
    True,
    /// It does not.
    False,
    /// An arm of a `switch`, at its own place.
    Arm,
    /// No arm with code in it.
    NoArm,
    /// The body of a loop.
    Body,
    /// `catch`.
    Catch,
    /// A closure is called.
    Closure,
}

impl Branch {
    /// What to say when it was never taken.
    pub const fn never(self) -> &'static str {
        match self {
            Self::True => "never true",
            Self::False => "never false",
            Self::Arm => "this arm was never taken",
            Self::NoArm => "an arm was always taken",
            Self::Body => "the loop's body was never entered",
            Self::Catch => "nothing was ever caught",
            Self::Closure => "the closure was never called",
        }
    }
}

/// What tests reached.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Coverage {
    /// Every script and module, in the order of their names.
    pub files: Vec<FileCoverage>,
}

/// What tests reached of one file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FileCoverage {
    /// File, relative to the scripts directory.
    pub file: Arc<str>,
    /// Lines with code, how often each was reached.
    pub lines: BTreeMap<u32, u64>,
    /// Branches, in the order of their places.
    pub branches: Vec<BranchCoverage>,
}

/// One branch.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BranchCoverage {
    /// Line of the fork, or of the arm.
    pub line: u32,
    /// Column of the fork, or of the arm.
    pub column: u32,
    /// What it is.
    pub branch: Branch,
    /// Line of the fork.
    pub fork_line: u32,
    /// Whether the fork was reached at all.
    pub fork_reached: bool,
    /// How often it was taken.
    pub taken: u64,
}

impl FileCoverage {
    /// Lines and branches that were reached, and all of them.
    pub fn reached(&self) -> (Share, Share) {
        let lines =
            Share { reached: self.lines.values().filter(|count| **count > 0).count(), all: self.lines.len() };
        let branches = Share {
            reached: self.branches.iter().filter(|branch| branch.taken > 0).count(),
            all: self.branches.len(),
        };
        (lines, branches)
    }

    /// Lines and branches together, 0 to 100.
    pub fn percent(&self) -> f64 {
        let (lines, branches) = self.reached();
        lines.and(branches).percent()
    }
}

impl Coverage {
    /// Lines and branches of all files together, 0 to 100.
    pub fn percent(&self) -> f64 {
        let both = self.files.iter().map(|file| {
            let (lines, branches) = file.reached();
            lines.and(branches)
        });
        both.fold(Share::default(), Share::and).percent()
    }

    /// What several runs reached, side by side.
    pub fn append(&mut self, other: Self) {
        self.files.extend(other.files);
    }
}

/// How many of how many.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Share {
    /// Those that were reached.
    pub reached: usize,
    /// All of them.
    pub all: usize,
}

impl Share {
    fn and(self, other: Self) -> Self {
        Self { reached: self.reached + other.reached, all: self.all + other.all }
    }

    /// 0 to 100; of nothing all was reached.
    pub fn percent(self) -> f64 {
        if self.all == 0 { 100.0 } else { self.reached as f64 * 100.0 / self.all as f64 }
    }
}

impl Recorder {
    /// Finds out what there is to be reached.
    pub(super) fn new(set: &ScriptSet) -> Self {
        let file = |file: &Arc<str>| Some((file.clone(), File::of(&set.syntax(file)?)));
        Self { files: set.scripts().iter().filter_map(|id| file(&id.file)).collect() }
    }

    /// Takes the way of one evaluation.
    pub(super) fn take(&mut self, way: &Way) {
        let mut open: Vec<Open> = Vec::new();
        for visit in &way.visits {
            let Some(place) = place(visit.place) else { continue };
            self.close(&mut open, Some((visit, place)));
            let Some(file) = self.files.get_mut(&visit.file) else { continue };
            if let Some(count) = file.statements.get_mut(&place) {
                *count += 1;
            }
            for (fork, branch) in file.entries.get(&place).cloned().unwrap_or_default() {
                if let Some((_, taken)) = file.forks.get_mut(&fork).and_then(|f| f.branches.get_mut(branch)) {
                    *taken += 1;
                }
            }
            if file.forks.get(&place).is_some_and(|fork| fork.silent().is_some()) {
                open.push(Open { file: visit.file.clone(), fork: place, depth: visit.depth });
            }
        }
        if way.ended {
            self.close(&mut open, None);
        }
    }

    /// Closes the forks that the evaluation has left: by a branch with code, or by the one without.
    fn close(&mut self, open: &mut Vec<Open>, now: Option<(&Visit, Place)>) {
        while let Some(last) = open.last() {
            let Some(fork) = self.files.get_mut(&last.file).and_then(|file| file.forks.get_mut(&last.fork))
            else {
                open.pop();
                continue;
            };
            let mut by_code = false;
            if let Some((visit, place)) = now {
                // A function that the condition calls.
                if visit.depth > last.depth {
                    return;
                }
                if visit.depth == last.depth && visit.file == last.file {
                    if fork.condition.contains(&place) {
                        return;
                    }
                    by_code = fork.entries.contains(&Some(place));
                }
            }
            if let (false, Some(silent)) = (by_code, fork.silent())
                && let Some((_, taken)) = fork.branches.get_mut(silent)
            {
                *taken += 1;
            }
            open.pop();
        }
    }

    /// What was reached so far.
    pub(super) fn coverage(&self) -> Coverage {
        let files = self.files.iter().map(|(name, file)| file.coverage(name));
        Coverage { files: files.filter(|file| !file.lines.is_empty()).collect() }
    }
}

/// A fork whose condition is being evaluated.
struct Open {
    file: Arc<str>,
    fork: Place,
    depth: usize,
}

impl File {
    fn of(ast: &AST) -> Self {
        let mut found = Self::default();
        // What stands outside functions runs when a set is loaded.
        let functions = ast.clone_functions_only();
        functions.walk(&mut |path: &[ASTNode<'_>]| {
            found.node(path);
            true
        });
        for closure in functions.iter_fn_def().filter(|function| function.name.starts_with("anon$")) {
            let at = place(closure.body.start_position());
            if let (Some(at), Some(entry)) = (at, first_of_function(&functions, &closure.name)) {
                found.fork(at).add(Branch::Closure, Some(entry));
            }
        }
        for (at, fork) in &found.forks {
            for (index, entry) in fork.entries.iter().enumerate() {
                if let Some(entry) = entry {
                    found.entries.entry(*entry).or_default().push((*at, index));
                }
            }
        }
        found
    }

    fn fork(&mut self, at: Place) -> &mut Fork {
        self.forks.entry(at).or_default()
    }

    /// A node with everything that it stands in.
    fn node(&mut self, path: &[ASTNode<'_>]) {
        let Some(node) = path.last() else { return };
        self.note_conditions(path);
        let ASTNode::Stmt(statement) = node else { return };
        if let Some(at) = first_of_statement(statement) {
            self.statements.entry(at).or_insert(0);
        }
        let Some(at) = place(statement.position()) else { return };
        match statement {
            Stmt::If(flow, _) => {
                let (body, branch) = (first(&flow.body), first(&flow.branch));
                if body.is_none() && branch.is_none() {
                    return;
                }
                let fork = self.fork(at);
                fork.add(Branch::True, body);
                fork.add(Branch::False, branch);
            }
            Stmt::Switch(switch, _) => {
                let cases = &switch.1;
                let arms: Vec<Option<Place>> =
                    cases.expressions.iter().map(|arm| first_of_expression(&arm.rhs)).collect();
                for (arm, entry) in cases.expressions.iter().zip(&arms) {
                    // An arm's value stands on a line of its own, without being a statement.
                    if let (Some(entry), false) = (entry, matches!(arm.rhs, Expr::Stmt(_))) {
                        self.statements.entry(*entry).or_insert(0);
                    }
                }
                let fork = self.fork(at);
                for entry in arms.iter().flatten() {
                    fork.add(Branch::Arm, Some(*entry));
                }
                if cases.def_case.is_none() || arms.iter().any(Option::is_none) {
                    fork.add(Branch::NoArm, None);
                }
            }
            Stmt::While(flow, _) if !matches!(flow.expr, Expr::Unit(..) | Expr::BoolConstant(true, ..)) => {
                if let Some(entry) = first(&flow.body) {
                    self.fork(at).add(Branch::Body, Some(entry));
                }
            }
            Stmt::For(flow, _) => {
                if let Some(entry) = first(&flow.2.body) {
                    self.fork(at).add(Branch::Body, Some(entry));
                }
            }
            Stmt::TryCatch(flow, _) => {
                if let Some(entry) = first(&flow.branch) {
                    self.fork(at).add(Branch::Catch, Some(entry));
                }
            }
            _ => {}
        }
    }

    /// Notes for each fork around a node whether the node belongs to its condition.
    fn note_conditions(&mut self, path: &[ASTNode<'_>]) {
        let Some(here) = path.last().and_then(|node| place(node.position())) else { return };
        for pair in path.windows(2) {
            let [ASTNode::Stmt(statement), ASTNode::Expr(child)] = pair else { continue };
            let in_condition = match statement {
                // Bodies are statements: an expression right below is the condition.
                Stmt::If(..) => true,
                Stmt::Switch(switch, _) => {
                    !switch.1.expressions.iter().any(|arm| std::ptr::eq(&raw const arm.rhs, *child))
                }
                _ => false,
            };
            if let (true, Some(at)) = (in_condition, place(statement.position())) {
                self.fork(at).condition.insert(here);
            }
        }
    }

    fn coverage(&self, name: &Arc<str>) -> FileCoverage {
        let mut lines: BTreeMap<u32, u64> = BTreeMap::new();
        for ((line, _), count) in &self.statements {
            let most = lines.entry(*line).or_insert(0);
            *most = (*most).max(*count);
        }
        let mut branches = Vec::new();
        for (at, fork) in &self.forks {
            let count = |place: &Place| self.statements.get(place).copied().unwrap_or(0);
            let any = fork.branches.iter().any(|(_, taken)| *taken > 0);
            for ((branch, taken), entry) in fork.branches.iter().zip(&fork.entries) {
                let (line, column) = match (branch, entry) {
                    (Branch::Arm, Some(entry)) => *entry,
                    _ => *at,
                };
                // A closure is no place that an evaluation comes to: the line that it stands on is.
                let passed = *branch == Branch::Closure && lines.get(&at.0).is_some_and(|count| *count > 0);
                let fork_reached = any || passed || count(at) > 0;
                let (branch, taken) = (*branch, *taken);
                branches.push(BranchCoverage { line, column, branch, fork_line: at.0, fork_reached, taken });
            }
        }
        FileCoverage { file: name.clone(), lines, branches }
    }
}

fn place(position: Position) -> Option<Place> {
    let number = |number: Option<usize>| number.and_then(|number| u32::try_from(number).ok());
    Some((number(position.line())?, number(position.position()).unwrap_or(0)))
}

/// The place that the debugger tells when a function is entered.
fn first_of_function(ast: &AST, name: &str) -> Option<Place> {
    let mut alone = ast.clone();
    alone.retain_functions(|_, _, other, _| other == name);
    let mut found = None;
    alone.walk(&mut |path: &[ASTNode<'_>]| {
        if let [ASTNode::Stmt(statement)] = path {
            found = found.or_else(|| first_of_statement(statement));
        }
        found.is_none()
    });
    found
}

/// The place that the debugger tells when a block is entered.
fn first(block: &StmtBlock) -> Option<Place> {
    first_of_statements(block.statements())
}

fn first_of_statements(statements: &[Stmt]) -> Option<Place> {
    statements.iter().find_map(first_of_statement)
}

fn first_of_statement(statement: &Stmt) -> Option<Place> {
    match statement {
        Stmt::Noop(_) => None,
        Stmt::Expr(expression) => first_of_expression(expression),
        other => place(other.position()),
    }
}

fn first_of_expression(expression: &Expr) -> Option<Place> {
    match expression {
        Expr::Stmt(block) => first(block),
        other => place(other.position()),
    }
}
