//! Who holds a port.

use std::fs;
use std::net::{IpAddr, SocketAddr};

/// The program that listens on `address`, as `nginx (pid 123)`; `None` where `/proc` does not tell.
pub(super) fn of_tcp(address: SocketAddr) -> Option<String> {
    let inode = listening_inode(address)?;
    let wanted = format!("socket:[{inode}]");
    let numbers = fs::read_dir("/proc").ok()?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let pid: u32 = numbers.into_iter().find(|pid: &u32| holds(*pid, &wanted))?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    Some(format!("{} (pid {pid})", name.trim()))
}

fn holds(pid: u32, socket: &str) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors.flatten().any(|entry| fs::read_link(entry.path()).is_ok_and(|target| target.to_str() == Some(socket)))
}

/// The inode of the socket that listens on this port and on this address or on all.
fn listening_inode(address: SocketAddr) -> Option<u64> {
    const LISTEN: &str = "0A";
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| fs::read_to_string(path).unwrap_or_default());
    tables.iter().flat_map(|table| table.lines().skip(1)).find_map(|line| {
        let columns: Vec<&str> = line.split_ascii_whitespace().collect();
        let (ip, port) = columns.get(1)?.split_once(':')?;
        let same_port = u16::from_str_radix(port, 16).ok()? == address.port();
        let all = ip.bytes().all(|byte| byte == b'0');
        let same_ip = all || address.ip().is_unspecified() || is_same(ip, address.ip());
        (columns.get(3) == Some(&LISTEN) && same_port && same_ip).then(|| columns.get(9)?.parse().ok())?
    })
}

/// The kernel prints addresses as hexadecimal words in the machine's byte order.
fn is_same(hexadecimal: &str, ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => u32::from_str_radix(hexadecimal, 16).is_ok_and(|word| word.to_ne_bytes() == ip.octets()),
        IpAddr::V6(ip) => {
            let words = hexadecimal.as_bytes().chunks(8).filter_map(|word| std::str::from_utf8(word).ok());
            let bytes = words.filter_map(|word| u32::from_str_radix(word, 16).ok()).flat_map(u32::to_ne_bytes);
            bytes.eq(ip.octets())
        }
    }
}
