-- What people read. Plain names, one row a figure; bytes are layer-3 bytes and directions the container's.
CREATE VIEW trafctl.traffic_5min AS
    SELECT l.node, coalesce(c.label, t.container::text) AS container, c.kind, t.class,
        CASE t.family WHEN 0 THEN 'ipv4' ELSE 'ipv6' END AS family,
        to_timestamp(t.start) AS time, u.day, s.class_table,
        t.in_packets, t.in_bytes, t.out_packets, t.out_bytes, l.id AS ledger, t.container AS container_number
    FROM trafctl.traffic t
    JOIN trafctl.ledger l ON l.number = t.ledger
    LEFT JOIN trafctl.unit u ON u.ledger = t.ledger AND u.level = t.level AND u.start = t.start
    LEFT JOIN trafctl.container c ON c.ledger = t.ledger AND c.number = t.container
    LEFT JOIN trafctl.series s ON s.ledger = t.ledger AND s.number = t.series
    WHERE t.level = 0;

-- Days that are over come as days. Of the others, there are only five minutes.
CREATE VIEW trafctl.traffic_day AS
    SELECT l.node, coalesce(c.label, d.container::text) AS container, c.kind, d.class, d.family, d.day, d.month,
        d.in_packets, d.in_bytes, d.out_packets, d.out_bytes, l.id AS ledger, d.container AS container_number
    FROM (
        SELECT t.ledger, t.container, t.class, CASE t.family WHEN 0 THEN 'ipv4' ELSE 'ipv6' END AS family,
            u.day, left(u.month, 7) AS month,
            sum(t.in_packets) AS in_packets, sum(t.in_bytes) AS in_bytes,
            sum(t.out_packets) AS out_packets, sum(t.out_bytes) AS out_bytes
        FROM trafctl.traffic t
        JOIN trafctl.unit u ON u.ledger = t.ledger AND u.level = t.level AND u.start = t.start
        WHERE t.level = 2 OR (t.level = 0 AND NOT EXISTS (
            SELECT 1 FROM trafctl.unit w
            WHERE w.ledger = u.ledger AND w.level = 2 AND w.start <= u.start AND w."end" > u.start
                AND w.start > u.start - 200000))
        GROUP BY t.ledger, t.container, t.class, t.family, u.day, left(u.month, 7)) d
    JOIN trafctl.ledger l ON l.number = d.ledger
    LEFT JOIN trafctl.container c ON c.ledger = d.ledger AND c.number = d.container;

-- What to bill: closed months as they were closed, with their corrections, and the others as counted so far.
-- Class 0 is not billed.
CREATE VIEW trafctl.bill_month AS
    SELECT b.node, b.month, coalesce(c.label, b.container) AS container, b.class, b.closed,
        sum(b.in_packets) AS in_packets, sum(b.in_bytes) AS in_bytes,
        sum(b.out_packets) AS out_packets, sum(b.out_bytes) AS out_bytes,
        l.id AS ledger, b.container_number
    FROM (
        SELECT r.ledger, r.node, p.name AS month, r.container, r.class, true AS closed, r.in_packets, r.in_bytes,
            r.out_packets, r.out_bytes, r.number AS container_number
        FROM trafctl.closed_row r
        JOIN trafctl.period p ON p.ledger = r.ledger AND p.number = r.period
        UNION ALL
        SELECT a.ledger, l.node, p.name, a.container, a.class, true, a.in_packets, a.in_bytes, a.out_packets,
            a.out_bytes, a.container_number
        FROM trafctl.adjustment a
        JOIN trafctl.period p ON p.ledger = a.ledger AND p.number = a.period
        JOIN trafctl.ledger l ON l.number = a.ledger
        UNION ALL
        SELECT l.number, d.node, d.month, d.container, d.class, false, d.in_packets, d.in_bytes, d.out_packets,
            d.out_bytes, d.container_number
        FROM trafctl.traffic_day d
        JOIN trafctl.ledger l ON l.id = d.ledger
        WHERE NOT EXISTS (SELECT 1 FROM trafctl.period p WHERE p.ledger = l.number AND p.name = d.month)) b
    JOIN trafctl.ledger l ON l.number = b.ledger
    LEFT JOIN trafctl.container c ON c.ledger = b.ledger AND c.number = b.container_number
    WHERE b.class <> 0
    GROUP BY b.node, b.month, coalesce(c.label, b.container), b.class, b.closed, l.id, b.container_number;

-- The nodes, and the last five minutes that each has shipped.
CREATE VIEW trafctl.nodes AS
    SELECT l.node, l.version, l.kernel, l.id AS ledger, l.changes, l.done,
        (SELECT to_timestamp(max(p.number)) FROM trafctl.part p WHERE p.ledger = l.number AND p.name = '5min')
            AS last_five_minutes
    FROM trafctl.ledger l;
