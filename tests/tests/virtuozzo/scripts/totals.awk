# Sums of the containers by class: `vznetstat | awk -f totals.awk`. The node's own row and class 0 are left out.
NR == 1 { if ($2 != "Net.Class") { print "no header" > "/dev/stderr"; exit 1 } next }
NF != 6 { print "a row of " NF " fields: " $0 > "/dev/stderr"; exit 1 }
$1 == "0" || $2 == 0 { next }
{ incoming[$2] += $3; outgoing[$2] += $5 }
END { for (class = 1; class < 16; class++) if (class in incoming) print class, incoming[class], outgoing[class] }
