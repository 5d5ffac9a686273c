//! `candidate-xrust STYLESHEET DOCUMENT [TIMES]`: prints the result; with TIMES the seconds of one transformation instead.

use std::time::Instant;
use std::{env, fs};

use url::Url;
use xrust::item::{Item, Node, SequenceTrait};
use xrust::parser::ParseError;
use xrust::parser::xml::parse;
use xrust::transform::context::StaticContextBuilder;
use xrust::trees::smite::RNode;
use xrust::xdmerror::{Error, ErrorKind};
use xrust::xslt::from_document;

fn read(text: &str) -> Result<RNode, Error> {
    let document = RNode::new_document();
    let lookup = |_: &_| Err(ParseError::MissingNameSpace { prefix: None, nsuri: None, message: None });
    parse(document.clone(), text, Some(lookup))?;
    Ok(document)
}

fn fetch(url: &Url) -> Result<String, Error> {
    let path = url.to_file_path().map_err(|()| Error::new(ErrorKind::Unknown, format!("no file: {url}")))?;
    fs::read_to_string(path).map_err(|error| Error::new(ErrorKind::Unknown, error.to_string()))
}

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let path = fs::canonicalize(&arguments[0]).expect("the stylesheet is there");
    let base = Url::from_file_path(&path).expect("an absolute path");
    let source = fs::read_to_string(&arguments[1]).expect("the document is there");
    let style = read(&fs::read_to_string(&path).expect("it can be read"))?;
    let compiled = from_document(style, Some(base.clone()), read, fetch)?;
    let run = || {
        let mut context = compiled.clone();
        let document = read(&source)?;
        context.context(vec![Item::Node(document.clone())], 0);
        context.result_document(RNode::new_document());
        context.set_baseurl(base.clone());
        context.manage_whitespace(document)?;
        let mut outside = StaticContextBuilder::new()
            .message(|message| {
                eprintln!("{message}");
                Ok(())
            })
            .fetcher(fetch)
            .parser(read)
            .build();
        let definition = context.output_definition_ref().clone();
        Ok::<_, Error>(context.evaluate(&mut outside)?.to_xml_with_options(&definition))
    };
    match arguments.get(2).and_then(|times| times.parse::<u32>().ok()) {
        None => print!("{}", run()?),
        Some(times) => {
            let begun = Instant::now();
            for _ in 0..times {
                run()?;
            }
            println!("{:.6}", begun.elapsed().as_secs_f64() / f64::from(times));
        }
    }
    Ok(())
}
