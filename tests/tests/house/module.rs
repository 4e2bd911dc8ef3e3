//! One file read as the modules that it holds: what each defines, imports and refers to. Code for tests is left out.

use std::collections::BTreeMap;

use crate::source::{Token, tokens};

/// What a name that a module defines stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A type or a trait.
    Type,
    /// A constant or a macro: as a type, it may be used by modules below without calling up.
    Constant,
    /// A function or a static.
    Function,
}

/// A path in the code, or a leaf of a `use`.
#[derive(Debug, Clone)]
pub(crate) struct Reference {
    /// Its words as they are written, but for `self` at the end of a `use`.
    pub(crate) words: Vec<String>,
    /// Its line.
    pub(crate) line: usize,
    /// True for `pub use`, which only hands a name on.
    pub(crate) reexport: bool,
}

/// A module as its source tells it.
#[derive(Debug, Default)]
pub(crate) struct Module {
    /// Its own code, in order, without that for tests.
    pub(crate) tokens: Vec<Token>,
    /// Names that it defines, with their lines.
    pub(crate) items: BTreeMap<String, (Kind, usize)>,
    /// Names that a `use` brings in, with their paths.
    pub(crate) imports: BTreeMap<String, Vec<String>>,
    /// Paths of `use PATH::*`.
    pub(crate) globs: Vec<Vec<String>>,
    /// What it refers to.
    pub(crate) references: Vec<Reference>,
    /// Modules in files of their own.
    pub(crate) files: Vec<String>,
    /// Modules in this file.
    pub(crate) inline: BTreeMap<String, Module>,
}

/// Reads a file.
pub(crate) fn read(text: &str) -> Module {
    let mut reader = Reader {
        tokens: without_tests(&tokens(text)),
        at: 0,
    };
    reader.module()
}

/// What follows an item's keywords decides where it ends.
fn ends_with_semicolon(words: &[&str]) -> bool {
    match words {
        ["use" | "static" | "type" | "let", ..] => true,
        ["const", next, ..] => !matches!(*next, "fn" | "unsafe" | "extern" | "async"),
        ["pub", rest @ ..] => ends_with_semicolon(rest),
        _ => false,
    }
}

/// The tokens without attributes, and without what is compiled for tests only.
fn without_tests(tokens: &[Token]) -> Vec<Token> {
    let mut kept = Vec::new();
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        let inner = tokens.get(at + 1).is_some_and(|next| next.text == "!");
        let open = at + 1 + usize::from(inner);
        let is_attribute =
            token.text == "#" && tokens.get(open).is_some_and(|next| next.text == "[");
        if !is_attribute {
            kept.push(token.clone());
            at += 1;
            continue;
        }
        let end = closing(tokens, open);
        let words: Vec<_> = tokens[open..end].iter().map(|it| &*it.text).collect();
        at = end + 1;
        if is_for_tests(&words) {
            if inner {
                return Vec::new();
            }
            at = end_of_item(tokens, at);
        }
    }
    kept
}

fn is_for_tests(words: &[&str]) -> bool {
    let has = |word| words.contains(&word);
    match words {
        ["[", "cfg", ..] => has("test") && !has("not") && !has("any"),
        ["[", "test"] | ["[", "tokio", "::", "test", ..] => true,
        _ => false,
    }
}

/// Where the bracket at `open` is closed.
fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        match &*token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at;
        }
    }
    tokens.len()
}

/// Behind the item, field, arm or statement that begins at `at`.
fn end_of_item(tokens: &[Token], mut at: usize) -> usize {
    while tokens.get(at).is_some_and(|token| token.text == "#") {
        at = closing(tokens, at + 1) + 1;
    }
    let mut words = tokens[at..].iter().map(|token| &*token.text);
    let mut first: Vec<_> = words.by_ref().take(16).collect();
    if let ["pub", "(", ..] = *first {
        let close = first.iter().position(|word| *word == ")").unwrap_or(1);
        first.drain(1..=close);
    }
    let semicolon = ends_with_semicolon(&first);
    let item = [
        "fn", "mod", "struct", "enum", "union", "trait", "impl", "unsafe", "async", "extern",
    ];
    let is_item = first.iter().take(2).any(|word| item.contains(word));
    while let Some(token) = tokens.get(at) {
        match &*token.text {
            ";" => return at + 1,
            "," if !is_item && !semicolon => return at + 1,
            ")" | "]" | "}" => return at,
            open @ ("(" | "[" | "{") => {
                at = closing(tokens, at) + 1;
                if open == "{" && !semicolon {
                    let comma = tokens.get(at).is_some_and(|next| next.text == ",");
                    return at + usize::from(comma && !is_item);
                }
            }
            _ => at += 1,
        }
    }
    at
}

struct Reader {
    tokens: Vec<Token>,
    at: usize,
}

impl Reader {
    fn text(&self, ahead: usize) -> &str {
        self.tokens
            .get(self.at + ahead)
            .map_or("", |token| &token.text)
    }

    fn is_word(&self, ahead: usize) -> bool {
        self.tokens.get(self.at + ahead).is_some_and(Token::is_word)
    }

    /// Reads up to the brace that closes the module, or to the end.
    fn module(&mut self) -> Module {
        let mut module = Module::default();
        let mut depth = 0;
        while self.at < self.tokens.len() {
            match self.text(0) {
                "}" if depth == 0 => break,
                "{" => depth += 1,
                "}" => depth -= 1,
                "use" if self.text(1) != "<" => {
                    self.import(&mut module, depth == 0);
                    continue;
                }
                "pub" if self.text(1) == "(" && self.text(2) == "in" => {
                    // A path that says who may see it uses nothing.
                    self.at = closing(&self.tokens, self.at + 1) + 1;
                    continue;
                }
                "mod" if depth == 0 && self.is_word(1) => {
                    self.child(&mut module);
                    continue;
                }
                _ if depth == 0 => self.item(&mut module),
                _ => {}
            }
            self.path(&mut module);
        }
        module
    }

    fn child(&mut self, module: &mut Module) {
        let name = self.text(1).to_owned();
        let inline = self.text(2) == "{";
        self.at += 3;
        if inline {
            let child = self.module();
            module.inline.insert(name, child);
            self.at += 1;
        } else {
            module.files.push(name);
        }
    }

    /// Notes the item that begins here, if one does.
    fn item(&self, module: &mut Module) {
        let kind = match self.text(0) {
            "struct" | "enum" | "union" | "trait" | "type" => Kind::Type,
            "const" => Kind::Constant,
            "fn" | "static" => Kind::Function,
            "macro_rules" if self.text(1) == "!" => {
                let line = self.tokens[self.at].line;
                let name = self.text(2).to_owned();
                module.items.insert(name, (Kind::Constant, line));
                return;
            }
            _ => return,
        };
        let keyword = ["fn", "unsafe", "async", "extern", "mut"].contains(&self.text(1));
        if self.is_word(1) && !keyword {
            let line = self.tokens[self.at].line;
            module.items.insert(self.text(1).to_owned(), (kind, line));
        }
    }

    /// Takes one token, and if a path begins with it the whole path.
    fn path(&mut self, module: &mut Module) {
        let before = self
            .at
            .checked_sub(1)
            .map_or("", |at| &*self.tokens[at].text);
        let begins = self.is_word(0) && self.text(1) == "::" && !matches!(before, "::" | ".");
        let line = self.tokens[self.at].line;
        let mut words = vec![self.text(0).to_owned()];
        self.take(module);
        if !begins {
            return;
        }
        while self.text(0) == "::" && self.is_word(1) {
            words.push(self.text(1).to_owned());
            self.take(module);
            self.take(module);
        }
        if words.len() > 1 {
            module.references.push(Reference {
                words,
                line,
                reexport: false,
            });
        }
    }

    fn take(&mut self, module: &mut Module) {
        module.tokens.push(self.tokens[self.at].clone());
        self.at += 1;
    }

    /// Reads a `use` up to its semicolon.
    fn import(&mut self, module: &mut Module, top: bool) {
        let before = self
            .at
            .checked_sub(1)
            .map_or("", |at| &*self.tokens[at].text);
        let reexport = top && (before == "pub" || before == ")");
        self.take(module);
        let begin = self.at;
        let mut leaves = Vec::new();
        self.tree(&mut Vec::new(), &mut leaves);
        let end = self.at.min(self.tokens.len());
        module.tokens.extend_from_slice(&self.tokens[begin..end]);
        for (words, name, line) in leaves {
            match &*name {
                "*" => module.globs.push(words.clone()),
                name => _ = module.imports.insert(name.to_owned(), words.clone()),
            }
            module.references.push(Reference {
                words,
                line,
                reexport,
            });
        }
    }

    /// Reads a tree of a `use` behind `prefix`; each leaf is a path, the name it has here, and its line.
    fn tree(&mut self, prefix: &mut Vec<String>, leaves: &mut Vec<(Vec<String>, String, usize)>) {
        let len = prefix.len();
        loop {
            let line = self.tokens.get(self.at).map_or(0, |token| token.line);
            match self.text(0) {
                "::" => self.at += 1,
                "{" => {
                    self.at += 1;
                    while !matches!(self.text(0), "}" | "") {
                        self.tree(prefix, leaves);
                        self.at += usize::from(self.text(0) == ",");
                    }
                    self.at += 1;
                    break;
                }
                "*" => {
                    leaves.push((prefix.clone(), "*".to_owned(), line));
                    self.at += 1;
                    break;
                }
                _ if self.is_word(0) && self.text(1) == "::" => {
                    prefix.push(self.text(0).to_owned());
                    self.at += 2;
                }
                _ if self.is_word(0) => {
                    let word = self.text(0).to_owned();
                    self.at += 1;
                    let mut path = prefix.clone();
                    if word != "self" || path.is_empty() {
                        path.push(word);
                    }
                    let mut name = path.last().cloned().unwrap_or_default();
                    if self.text(0) == "as" {
                        name = self.text(1).to_owned();
                        self.at += 2;
                    }
                    leaves.push((path, name, line));
                    break;
                }
                _ => break,
            }
        }
        prefix.truncate(len);
    }
}
