//! Rust source as tokens with their lines: words, `::`, and every other sign by itself. Comments are gone, and of literals
//! only their place is left, so that no word of theirs is taken for code.

/// One token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    /// A word, `::`, a sign, or `""` for a literal.
    pub(crate) text: String,
    /// Its line, from 1.
    pub(crate) line: usize,
}

impl Token {
    /// True if it is a word: a name or a keyword.
    pub(crate) fn is_word(&self) -> bool {
        self.text.starts_with(is_word_start)
    }
}

/// The tokens of `text`.
pub(crate) fn tokens(text: &str) -> Vec<Token> {
    let mut lexer = Lexer {
        chars: text.chars().collect(),
        at: 0,
        line: 1,
        tokens: Vec::new(),
    };
    while lexer.at < lexer.chars.len() {
        lexer.step();
    }
    lexer.tokens
}

struct Lexer {
    chars: Vec<char>,
    at: usize,
    line: usize,
    tokens: Vec<Token>,
}

fn is_word_start(c: char) -> bool {
    c.is_alphabetic() || c == '_'
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

impl Lexer {
    fn peek(&self, ahead: usize) -> char {
        self.chars.get(self.at + ahead).copied().unwrap_or('\0')
    }

    fn advance(&mut self) -> char {
        let c = self.peek(0);
        self.at += 1;
        self.line += usize::from(c == '\n');
        c
    }

    /// How many `#` are next.
    fn hashes(&self) -> usize {
        let next = self.chars[self.at.min(self.chars.len())..].iter();
        next.take_while(|c| **c == '#').count()
    }

    fn push(&mut self, text: impl Into<String>, line: usize) {
        self.tokens.push(Token {
            text: text.into(),
            line,
        });
    }

    fn step(&mut self) {
        let line = self.line;
        match (self.peek(0), self.peek(1)) {
            ('/', '/') => {
                while self.at < self.chars.len() && self.peek(0) != '\n' {
                    self.advance();
                }
            }
            ('/', '*') => self.block_comment(),
            ('"', _) => self.string(),
            ('\'', _) => self.quote(),
            (':', ':') => {
                self.at += 2;
                self.push("::", line);
            }
            (c, _) if c.is_ascii_digit() => self.number(),
            (c, _) if is_word_start(c) => self.word(),
            (c, _) => {
                self.advance();
                if !c.is_whitespace() {
                    self.push(c, line);
                }
            }
        }
    }

    fn block_comment(&mut self) {
        let mut depth = 0;
        loop {
            match (self.peek(0), self.peek(1)) {
                ('/', '*') => depth += 1,
                ('*', '/') => depth -= 1,
                ('\0', _) => return,
                _ => {
                    self.advance();
                    continue;
                }
            }
            self.at += 2;
            if depth == 0 {
                return;
            }
        }
    }

    /// A string with escapes; the quote is the next character.
    fn string(&mut self) {
        let line = self.line;
        self.advance();
        while self.at < self.chars.len() {
            match self.advance() {
                '\\' => _ = self.advance(),
                '"' => break,
                _ => {}
            }
        }
        self.push("\"\"", line);
    }

    /// A raw string; its hashes are the next characters.
    fn raw_string(&mut self) {
        let line = self.line;
        let hashes = self.hashes();
        self.at += hashes + 1;
        while self.at < self.chars.len() {
            if self.advance() == '"' && (0..hashes).all(|ahead| self.peek(ahead) == '#') {
                self.at += hashes;
                break;
            }
        }
        self.push("\"\"", line);
    }

    /// A character, or a lifetime, which says nothing here.
    fn quote(&mut self) {
        let line = self.line;
        self.advance();
        if self.peek(0) == '\\' {
            self.at += 2;
            while self.at < self.chars.len() && self.advance() != '\'' {}
            self.push("\"\"", line);
        } else if self.peek(1) == '\'' {
            self.advance();
            self.at += 1;
            self.push("\"\"", line);
        } else {
            while is_word(self.peek(0)) {
                self.at += 1;
            }
        }
    }

    fn number(&mut self) {
        let line = self.line;
        while is_word(self.peek(0)) || (self.peek(0) == '.' && self.peek(1).is_ascii_digit()) {
            self.at += 1;
        }
        self.push("\"\"", line);
    }

    /// A word, or the literal that it is the prefix of.
    fn word(&mut self) {
        let line = self.line;
        let mut text = String::new();
        while is_word(self.peek(0)) {
            text.push(self.advance());
        }
        let raw = matches!(&*text, "r" | "br" | "cr");
        let hashes = self.hashes();
        match self.peek(0) {
            '"' if raw => self.raw_string(),
            '#' if raw && self.peek(hashes) == '"' => self.raw_string(),
            '#' if text == "r" && is_word_start(self.peek(1)) => {
                self.at += 1;
                self.word();
            }
            '"' if matches!(&*text, "b" | "c") => self.string(),
            '\'' if text == "b" => self.quote(),
            _ => self.push(text, line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::tokens;

    fn words(text: &str) -> Vec<String> {
        let mut words: Vec<_> = tokens(text).into_iter().collect();
        words.retain(super::Token::is_word);
        words.into_iter().map(|token| token.text).collect()
    }

    #[test]
    fn comments_and_literals_hold_no_code() {
        let text = r##"
            // crate::one
            /* crate::two /* nested */ still */
            let a = "crate::three \" unsafe"; let b = r#"crate::"four"#; let c = b'\''; let d = 'x';
            let e: &'static str = b"five"; let f = '"'; let r#type = 1.5e3..7;
        "##;
        assert_eq!(
            words(text),
            [
                "let", "a", "let", "b", "let", "c", "let", "d", "let", "e", "str", "let", "f",
                "let", "type"
            ]
        );
    }

    #[test]
    fn lines_are_counted_through_comments_and_strings() {
        let found = tokens("/* a\n b */ one\n\"two\n\" three // four\n\nfive");
        let found: Vec<_> = found
            .iter()
            .map(|token| (&*token.text, token.line))
            .collect();
        assert_eq!(found, [("one", 2), ("\"\"", 3), ("three", 4), ("five", 6)]);
    }
}
