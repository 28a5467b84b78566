//! Owns the lines at the bottom of a terminal that are drawn over and over, and the lines that stay above
//! them. Where there is no terminal only the lines that stay are written.

use std::io::{self, Write};

use super::terminal::Style;

/// Begins at the left and forgets what the line held.
const CLEAR_LINE: &str = "\r\u{1b}[2K";
/// A line that is wider than the terminal is cut by it instead of being broken into two, which would shift
/// everything that is drawn over.
const WRAP_OFF: &str = "\u{1b}[?7l";
const WRAP_ON: &str = "\u{1b}[?7h";

/// A place to draw.
pub(super) struct Canvas {
    out: Box<dyn Write>,
    live: bool,
    drawn: Vec<String>,
}

impl Canvas {
    /// For data.
    pub(super) fn stdout() -> Self {
        Self { out: Box::new(io::stdout()), live: Style::of_stdout().live, drawn: Vec::new() }
    }

    /// For talk.
    pub(super) fn stderr() -> Self {
        Self { out: Box::new(io::stderr()), live: Style::of_stderr().live, drawn: Vec::new() }
    }

    /// Writes one or more lines that stay.
    pub(super) fn say(&mut self, line: &str) {
        let drawn = std::mem::take(&mut self.drawn);
        let text = format!("{}{line}\n", erasing(drawn.len()));
        self.write(&text);
        self.draw(drawn);
    }

    /// Draws lines in place of those drawn before.
    pub(super) fn draw(&mut self, lines: Vec<String>) {
        if !self.live || self.drawn == lines {
            return;
        }
        let mut text = erasing(self.drawn.len());
        if !lines.is_empty() {
            text.push_str(WRAP_OFF);
            lines.iter().for_each(|line| text.extend([line.as_str(), "\n"]));
            text.push_str(WRAP_ON);
        }
        self.drawn = lines;
        self.write(&text);
    }

    /// What is drawn stays from now on.
    pub(super) fn keep(&mut self) {
        self.drawn.clear();
    }

    /// A terminal that has gone away is no reason to stop the work that is shown on it.
    fn write(&mut self, text: &str) {
        let _ = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
    }
}

/// Takes back so many lines, the lowest first.
fn erasing(lines: usize) -> String {
    if lines == 0 { String::new() } else { format!("\u{1b}[1A{CLEAR_LINE}").repeat(lines) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::rc::Rc;

    #[derive(Clone, Default)]
    struct Paper(Rc<RefCell<Vec<u8>>>);

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(live: bool) -> String {
        let paper = Paper::default();
        let mut canvas = Canvas { out: Box::new(paper.clone()), live, drawn: Vec::new() };
        canvas.draw(vec!["bar 1".into()]);
        canvas.draw(vec!["bar 1".into()]);
        canvas.say("news");
        let bytes = paper.0.borrow().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn without_a_terminal_only_what_stays_is_written() {
        assert_eq!(written(false), "news\n");
    }

    #[test]
    fn news_appears_above_what_is_drawn() {
        let bar = format!("{WRAP_OFF}bar 1\n{WRAP_ON}");
        assert_eq!(written(true), format!("{bar}\u{1b}[1A{CLEAR_LINE}news\n{bar}"));
    }
}
