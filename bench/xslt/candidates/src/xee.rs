//! `candidate-xee STYLESHEET DOCUMENT [TIMES]`: prints the result; with TIMES the seconds of one transformation instead.

use std::time::Instant;
use std::{env, fs};

use xee_interpreter::sequence::Item;
use xee_xslt_compiler::evaluate;
use xot::Xot;

fn run(source: &str, style: &str) -> Result<String, String> {
    let mut xot = Xot::new();
    let made = evaluate(&mut xot, source, style).map_err(|error| format!("{error:?}"))?;
    let mut text = String::new();
    for item in made.iter() {
        match item {
            Item::Node(node) => text.push_str(&xot.to_string(node).map_err(|error| error.to_string())?),
            Item::Atomic(value) => text.push_str(&value.xpath_representation()),
            Item::Function(_) => return Err("a function is no result".to_owned()),
        }
    }
    Ok(text)
}

fn main() -> Result<(), String> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let style = fs::read_to_string(&arguments[0]).map_err(|error| error.to_string())?;
    let source = fs::read_to_string(&arguments[1]).map_err(|error| error.to_string())?;
    match arguments.get(2).and_then(|times| times.parse::<u32>().ok()) {
        None => print!("{}", run(&source, &style)?),
        Some(times) => {
            let begun = Instant::now();
            for _ in 0..times {
                run(&source, &style)?;
            }
            println!("{:.6}", begun.elapsed().as_secs_f64() / f64::from(times));
        }
    }
    Ok(())
}
