//! The literals of a `switch`: Rhai keeps only their hashes, so they are read from the text.

use rhai::{Engine, Position, Token};

use super::kinds::{Kind, Value};

/// The tokens of a script that compiled, those within interpolated strings too.
pub(super) fn tokens(engine: &Engine, text: &str) -> Vec<(Token, Position)> {
    let text = [text];
    let (stream, control) = engine.lex(&text);
    let (mut tokens, mut depth, mut interpolations) = (Vec::new(), 0usize, Vec::new());
    for (token, position) in stream {
        match &token {
            Token::EOF | Token::LexError(_) => break,
            Token::InterpolatedString(_) => interpolations.push(depth),
            Token::LeftBrace | Token::MapStart => depth += 1,
            Token::RightBrace => {
                depth = depth.saturating_sub(1);
                if interpolations.last() == Some(&depth) {
                    interpolations.pop();
                    // What follows is text again, until the string ends or the next interpolation begins.
                    control.borrow_mut().is_within_text = true;
                }
            }
            _ => {}
        }
        tokens.push((token, position));
    }
    tokens
}

/// The literal cases of the `switch` that stands at a place.
pub(super) fn cases(tokens: &[(Token, Position)], file: usize, at: Position) -> Vec<(Value, Position)> {
    let mut tokens = tokens.iter().skip_while(|(_, position)| *position != at).peekable();
    let (mut depth, mut nested, mut in_pattern, mut found) = (0usize, 0usize, false, Vec::new());
    while let Some((token, position)) = tokens.next() {
        match token {
            // What is switched over, and what a case gives, may have brackets of their own.
            Token::LeftParen | Token::LeftBracket | Token::MapStart => nested += 1,
            Token::RightParen | Token::RightBracket => nested = nested.saturating_sub(1),
            Token::LeftBrace if nested > 0 => nested += 1,
            Token::RightBrace if nested > 0 => nested -= 1,
            Token::LeftBrace => {
                depth += 1;
                in_pattern = depth == 1;
            }
            Token::RightBrace => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    break;
                }
                in_pattern = depth == 1;
            }
            _ if depth != 1 || nested > 0 => {}
            Token::Comma => in_pattern = true,
            Token::DoubleArrow | Token::If => in_pattern = false,
            _ if in_pattern => {
                let next = tokens.peek().map(|(token, _)| token);
                let ends = matches!(next, Some(Token::Pipe | Token::DoubleArrow | Token::If));
                let value = literal(file, token, *position).filter(|_| ends);
                found.extend(value.map(|value| (value, *position)));
            }
            _ => {}
        }
    }
    found
}

fn literal(file: usize, token: &Token, position: Position) -> Option<Value> {
    Some(match token {
        Token::StringConstant(text) => Value::literal(file, position, &text.as_str().into()),
        Token::IntegerConstant(_) => Kind::Int.into(),
        Token::FloatConstant(_) => Kind::Float.into(),
        Token::CharConstant(_) => Kind::Char.into(),
        Token::True | Token::False => Kind::Bool.into(),
        Token::Unit => Kind::Unit.into(),
        _ => return None,
    })
}
