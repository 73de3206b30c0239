#!/bin/sh
# A dump of each database, now and every BACKUP_HOURS; those older than BACKUP_DAYS go, but never the last three of any.
# `once` makes one round and ends. Where and as whom: PGHOST, PGPORT, PGUSER, PGPASSWORD; what: BACKUP_DATABASES.
set -eu
umask 077
folder=${BACKUP_FOLDER:-/backups}

dump() {
    stamp=$(date -u +%Y%m%dT%H%M%SZ)
    for name in $BACKUP_DATABASES; do
        whole="$folder/$name-$stamp.dump"
        pg_dump --format=custom --file="$whole.part" "$name"
        # A dump that cannot be read back is none.
        pg_restore --list "$whole.part" > /dev/null
        mv "$whole.part" "$whole"
        echo "$whole: $(wc -c < "$whole") bytes"
    done
}

forget() {
    for name in $BACKUP_DATABASES; do
        # Names sort by time. The last three stay, whatever their age.
        find "$folder" -name "$name-[0-9]*.dump" | sort -r | tail -n +4 | while read -r old; do
            find "$old" -mtime "+$BACKUP_DAYS" -delete -print
        done
    done
    find "$folder" -name '*.dump.part' -mmin +600 -delete
}

while true; do
    dump
    forget
    [ "${1:-}" = once ] && exit 0
    sleep "$((BACKUP_HOURS * 3600))"
done
