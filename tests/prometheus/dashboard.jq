# Lists the faults of a dashboard, and prints false if there are any.
def shown: .panels[] | select(.type != "row");
def overlaps($a; $b):
    $a.x < $b.x + $b.w and $b.x < $a.x + $a.w and $a.y < $b.y + $b.h and $b.y < $a.y + $a.h;
[
    (.panels | group_by(.id)[] | select(length > 1) | "id \(.[0].id) is used twice"),
    (shown | select((.title // "") == "" or (.description // "") == "")
        | "panel \(.id) lacks a title or a description"),
    (shown | select(.fieldConfig.defaults.unit == null) | "\(.title): no unit"),
    (shown | select((.targets | length) == 0) | "\(.title): no expression"),
    (shown | select(any((., .targets[]); .datasource == null)) | "\(.title): no data source"),
    ([.. | objects | .datasource // empty | .uid] | unique[] | select(. != "${datasource}")
        | "data source \(.) isn't the variable"),
    (.panels[] | select(.gridPos.x + .gridPos.w > 24) | "\(.title): wider than the grid"),
    (.panels as $p | range($p | length) as $i | range($i) as $j
        | select(overlaps($p[$i].gridPos; $p[$j].gridPos)) | "\($p[$i].title) covers \($p[$j].title)"),
    (if .templating.list[0] | .name == "datasource" and .type == "datasource" then empty
        else "the first variable isn't the data source" end)
] | if . == [] then true else ., false end
