//! `memory.numa_stat`: distribution of a cgroup's memory over NUMA nodes (since 5.10, with
//! `CONFIG_NUMA`).

/// Memory of a cgroup on one node. Amounts are bytes; values that the kernel doesn't report are
/// `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeStat {
    /// Number of the node. Numbers can have gaps.
    pub number: u32,
    /// Anonymous memory.
    pub anon: Option<u64>,
    /// Page cache, tmpfs included.
    pub file: Option<u64>,
}

/// Parses the text of a `memory.numa_stat` into nodes, in its order.
#[must_use]
pub(crate) fn parse(text: &str) -> Vec<NodeStat> {
    let mut nodes: Vec<NodeStat> = Vec::new();
    for line in text.lines() {
        let mut fields = line.split_ascii_whitespace();
        let field: fn(&mut NodeStat) -> &mut Option<u64> = match fields.next() {
            Some("anon") => |node| &mut node.anon,
            Some("file") => |node| &mut node.file,
            _ => continue,
        };
        for (number, bytes) in fields.filter_map(on_node) {
            let at = nodes.iter().position(|node| node.number == number).unwrap_or_else(|| {
                nodes.push(NodeStat { number, ..NodeStat::default() });
                nodes.len() - 1
            });
            *field(&mut nodes[at]) = Some(bytes);
        }
    }
    nodes
}

/// Parses a field such as `N0=4096` into the node's number and bytes.
fn on_node(field: &str) -> Option<(u32, u64)> {
    let (number, bytes) = field.strip_prefix('N')?.split_once('=')?;
    Some((number.parse().ok()?, bytes.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_told_apart() {
        let text = "anon N0=4096 N2=8192\nfile N0=0 N2=12288\nkernel_stack N0=1 N2=1\nbroken\nfile_mapped N0=5 N2=5\n";
        let expected = [
            NodeStat { number: 0, anon: Some(4096), file: Some(0) },
            NodeStat { number: 2, anon: Some(8192), file: Some(12288) },
        ];
        assert_eq!(parse(text), expected);
        assert_eq!(parse("anon N0=x Nx=1 0=1\n"), []);
        assert_eq!(parse("anon N1=7\n"), [NodeStat { number: 1, anon: Some(7), file: None }]);
    }
}
