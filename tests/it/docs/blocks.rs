//! The sessions in a text: what is typed, and what is answered.

use std::fmt;

/// A text with sessions in it.
pub struct Document(Vec<Part>);

enum Part {
    /// Lines as they are.
    Text(String),
    Session(Block),
}

/// A block of ```` ```console ````.
pub struct Block {
    /// Where it begins.
    pub line: usize,
    /// What it answers differs from run to run.
    pub varies: bool,
    pub steps: Vec<Step>,
}

/// A command and its answer.
pub struct Step {
    /// One line, or several of which all but the first begin with `> `.
    pub command: String,
    /// Whole lines.
    pub output: String,
}

impl Document {
    pub fn read(text: &str) -> Self {
        let mut parts = Vec::new();
        let mut lines = text.lines().enumerate();
        while let Some((index, line)) = lines.next() {
            parts.push(Part::Text(format!("{line}\n")));
            let Some(rest) = line.strip_prefix("```console") else { continue };
            let mut steps: Vec<Step> = Vec::new();
            for (_, line) in lines.by_ref().take_while(|(_, line)| *line != "```") {
                match (line.strip_prefix("$ "), line.strip_prefix("> "), steps.last_mut()) {
                    (Some(command), _, _) => {
                        steps.push(Step { command: command.to_owned(), output: String::new() });
                    }
                    (None, Some(more), Some(step)) if step.output.is_empty() => step.command += &format!("\n{more}"),
                    (None, _, Some(step)) => step.output += &format!("{line}\n"),
                    (None, _, None) => panic!("line {}: a session begins with `$ `", index + 2),
                }
            }
            parts.push(Part::Session(Block { line: index + 1, varies: rest.trim() == "varies", steps }));
            parts.push(Part::Text("```\n".to_owned()));
        }
        Self(parts)
    }

    pub fn blocks(&mut self) -> impl Iterator<Item = &mut Block> {
        self.0.iter_mut().filter_map(|part| match part {
            Part::Session(block) => Some(block),
            Part::Text(_) => None,
        })
    }
}

impl fmt::Display for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for part in &self.0 {
            match part {
                Part::Text(text) => f.write_str(text)?,
                Part::Session(block) => {
                    for Step { command, output } in &block.steps {
                        write!(f, "$ {}\n{output}", command.replace('\n', "\n> "))?;
                    }
                }
            }
        }
        Ok(())
    }
}

#[test]
fn a_text_is_written_as_it_was_read() {
    let text = "# T\n\n```sh\n$ no\n```\n```console\n$ a <<'END'\n> b\n> END\nc\n\nd\n$ e\n```\n\n```console varies\n$ f\n```\nx\n";
    let mut document = Document::read(text);
    assert_eq!(document.to_string(), text);
    let blocks: Vec<_> = document.blocks().map(|block| (block.line, block.varies, block.steps.len())).collect();
    assert_eq!(blocks, [(6, false, 2), (16, true, 1)]);
    let first = &document.blocks().next().unwrap().steps[0];
    assert_eq!((first.command.as_str(), first.output.as_str()), ("a <<'END'\nb\nEND", "c\n\nd\n"));
}
