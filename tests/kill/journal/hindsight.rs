//! What can only be judged afterwards: what logs tell, and the order of starts.

use super::{Call, Checked, Journal};
use serde_json::Value;
use std::collections::HashMap;

impl Journal {
    /// The log of a function against what is known of its calls. Logs may lose lines to a kill, and never tell what was
    /// not.
    pub fn logged(&mut self, function: usize, lines: &[Value]) -> Checked {
        self.counts.log_lines += lines.len();
        let name = self.functions[function].name;
        let mut runs: HashMap<&str, u32> = HashMap::new();
        let mut bodies: HashMap<&str, &str> = HashMap::new();
        for line in lines {
            let (Some(call), Some(event)) = (line["CallId"].as_str(), line["Event"].as_str()) else { continue };
            match event {
                "CALL" => {
                    let body = line["ShortStdin"].as_str().unwrap_or_default();
                    let is_keyed = body.starts_with("key ");
                    if bodies.insert(body, call).is_some_and(|before| before != call) && !is_keyed {
                        return Err(format!("{name}: {body} is two calls, {call} one of them"));
                    }
                    if self.synchronous.contains(body) && self.by_id.contains_key(call) {
                        return Err(format!("{name}: {body} was synchronous, and is kept as {call}"));
                    }
                }
                "RUNNING" => {
                    *runs.entry(call).or_default() += 1;
                    let Some(known) = self.by_id.get(call) else { continue };
                    let at = line["Time"].as_str().and_then(|at| at.parse::<jiff::Timestamp>().ok());
                    let at = at.ok_or_else(|| format!("{name}: a line without a time: {line}"))?.as_millisecond();
                    if self.calls[*known].end.is_some() && at > self.calls[*known].end_seen_ms {
                        return Err(self.wrong(*known, &format!("it has ended, and was started again: {line}")));
                    }
                }
                _ => {}
            }
        }
        // A synchronous call that has waited in vain is told of as well.
        if let Some((body, call)) =
            bodies.iter().find(|(body, call)| self.refused.contains(**body) && runs.contains_key(*call))
        {
            return Err(format!("{name}: {body} was refused, and runs as {call}"));
        }
        for (call, runs) in runs {
            match self.by_id.get(call) {
                // A synchronous one, or one that nobody has heard of.
                None if bodies.iter().any(|(body, of)| *of == call && self.synchronous.contains(*body)) && runs > 1 => {
                    return Err(format!("{name}: the synchronous call {call} was started {runs} times"));
                }
                None => {}
                Some(known) => {
                    let told = self.calls[*known].stamp.map_or(u32::MAX, |(_, attempt)| u32::from(attempt));
                    if runs > told {
                        return Err(self.wrong(*known, &format!("its log knows {runs} starts")));
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether first starts are in the order of acceptance, as far as answers tell it: one call was answered before
    /// another was sent. Two cases: calls of a function that runs one at a time, and calls of all functions whose first
    /// start was made by a server that runs one at a time.
    pub fn check_order(&mut self) -> Checked {
        let is_in = |at: u64| self.single.iter().any(|(ready, killed)| *ready <= at && at <= *killed);
        let single: Vec<bool> = self.calls.iter().map(|call| call.stamp.is_some_and(|(at, _)| is_in(at))).collect();
        for (call, is_single) in self.calls.iter_mut().zip(single) {
            call.is_single = is_single;
        }
        let ordered = |function: &usize| self.functions[*function].is_ordered;
        for function in (0..self.functions.len()).filter(ordered).collect::<Vec<_>>() {
            let of_it = |call: &Call| call.function == function;
            self.in_order(&of_it, &of_it)?;
        }
        self.in_order(&|_| true, &|call| call.is_single && call.stamp.is_some_and(|(_, attempt)| attempt == 1))
    }

    /// No `later` call has started before an `earlier` one whose first start is known.
    fn in_order(&mut self, earlier: &dyn Fn(&Call) -> bool, later: &dyn Fn(&Call) -> bool) -> Checked {
        let mut firsts: Vec<(u64, u64, usize)> = Vec::new();
        let mut others: Vec<(u64, u64, usize)> = Vec::new();
        for (number, call) in self.calls.iter().enumerate() {
            let Some((at, attempt)) = call.stamp else { continue };
            if let Some(answered) = call.answered
                && attempt == 1
                && earlier(call)
            {
                firsts.push((answered, at, number));
            }
            if let Some(sent) = call.sent
                && later(call)
            {
                others.push((sent, at, number));
            }
        }
        firsts.sort_unstable();
        others.sort_unstable();
        let mut behind = firsts.into_iter().peekable();
        let mut last: Option<(u64, usize)> = None;
        for (sent, at, number) in others {
            while let Some((_, first, call)) = behind.next_if(|(answered, ..)| *answered < sent) {
                last = last.max(Some((first, call)));
            }
            if let Some((first, call)) = last {
                self.counts.orders += 1;
                if first > at {
                    return Err(format!(
                        "{}\nwas started before\n{}",
                        self.wrong(number, "it came later"),
                        self.wrong(call, "it came earlier")
                    ));
                }
            }
        }
        Ok(())
    }
}
