/* A server that answers as directory APIs do, counts the users it is sent, and costs next to nothing.
 *
 * HTTP/1.1 on 127.0.0.1, one thread, epoll. Prints its port, and ends when its stdin does. A request's users are found
 * by the name of their key, and are to be called user<number>@..., as benchmarks/generate.py calls them: a bitmap tells
 * who was seen. An answer goes out `delay_us` after its request was whole; any number may wait at once.
 *
 *     POST /v1/directory/user-attributes   a result for each user
 *     PUT /_bulk                           an item for each user, as Elasticsearch has them
 *     POST /users.attributes.update        the one user
 *     PATCH /Users/ID                      204
 *     POST /plain                          {}
 *     POST /-/reset?users=N&delay_us=D     forget all, and expect user0 to user<N-1>
 *     GET /-/stats                         what was counted, as JSON
 *
 * In C since a server in Python takes as long for a user as the loaders that are to be measured: it would be the
 * bottleneck, and share its figures with whoever is the fastest.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { HEAD_ROOM = 256, FIRST_BYTES = 1 << 18, MOST_BYTES = 1 << 28, EVENTS = 256 };

struct buffer {
    char *at;
    size_t used, room;
};

struct connection {
    int fd;
    struct buffer in, out;   /* `out` begins with HEAD_ROOM bytes, of which the answer's head takes the last */
    size_t sent;             /* how far `out` is sent; an answer is there while out.used > 0 */
    size_t request;          /* bytes of the request that is being answered */
    bool is_waiting;         /* for its moment: it is in the queue */
    bool is_closed, is_continued;
    uint64_t due;
    struct connection *next; /* in the queue */
};

struct route {
    const char *method, *path;
    const char *key;         /* the name of the users' key in a body, quoted; NULL: the user is in the path */
    const char *head, *before, *after, *tail; /* of the answer; before and after each user, with commas between */
    int status;
};

static const struct route ROUTES[] = {
    {"POST", "/v1/directory/user-attributes", "\"userName\"", "{\"results\":[", "{\"userName\":\"",
     "\",\"message\":\"OK\",\"resultCode\":0}", "]}", 200},
    {"PUT", "/_bulk", "\"_id\"", "{\"took\":1,\"errors\":false,\"items\":[",
     "{\"index\":{\"_index\":\"users\",\"_id\":\"",
     "\",\"_version\":1,\"result\":\"created\",\"_shards\":{\"total\":2,\"successful\":1,\"failed\":0},"
     "\"_seq_no\":1,\"_primary_term\":1,\"status\":201}}",
     "]}", 200},
    {"POST", "/users.attributes.update", "\"email\"", "{\"ok\":true,\"user\":", "{\"email\":\"", "\"}", "}", 200},
    {"POST", "/plain", "\"userName\"", "{", NULL, NULL, "}", 200},
    {"PATCH", "/Users/", NULL, "", NULL, NULL, "", 204},
};

static struct {
    uint64_t users, distinct, strange, requests, bytes, first_ns, last_ns, delay_ns, expected;
    uint64_t waiting, most_waiting, cpu_us; /* cpu_us: what it had taken before */
    uint64_t *seen;
} counted;

static struct connection *queue_first, *queue_last; /* all answers wait equally long, so the first in is the first out */
static int epoll;

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void die(const char *what) {
    perror(what);
    exit(1);
}

static void reserve(struct buffer *buffer, size_t room) {
    if (room <= buffer->room)
        return;
    size_t larger = buffer->room ? buffer->room : FIRST_BYTES;
    while (larger < room)
        larger *= 2;
    if (larger > MOST_BYTES || !(buffer->at = realloc(buffer->at, larger)))
        die("a request is too large");
    buffer->room = larger;
}

static void append(struct buffer *buffer, const char *text, size_t length) {
    reserve(buffer, buffer->used + length);
    memcpy(buffer->at + buffer->used, text, length);
    buffer->used += length;
}

static void append_text(struct buffer *buffer, const char *text) { append(buffer, text, strlen(text)); }

/* Users -------------------------------------------------------------------------------------------------------------*/

static void count_user(const char *name, const char *end) {
    char *after = NULL;
    bool is_ours = end - name > 5 && !memcmp(name, "user", 4) && name[4] >= '0' && name[4] <= '9';
    uint64_t number = is_ours ? strtoull(name + 4, &after, 10) : 0;
    counted.users++;
    if (!is_ours || (*after != '@' && *after != '%') || number >= counted.expected) {
        counted.strange++;
        return;
    }
    uint64_t bit = (uint64_t)1 << (number % 64), *word = &counted.seen[number / 64];
    counted.distinct += !(*word & bit);
    *word |= bit;
}

/* Count the users of a body, and say of each that it was taken. */
static void take_users(const struct route *route, const char *at, const char *end, struct buffer *out) {
    size_t key_length = strlen(route->key), before_length = 0, after_length = 0;
    bool is_first = true;
    if (route->before)
        before_length = strlen(route->before), after_length = strlen(route->after);
    while ((at = memmem(at, (size_t)(end - at), route->key, key_length))) {
        at += key_length;
        while (at < end && (*at == ' ' || *at == ':'))
            at++;
        if (at == end || *at++ != '"')
            continue;
        const char *quote = memchr(at, '"', (size_t)(end - at));
        if (!quote)
            return;
        count_user(at, quote);
        if (route->before) {
            if (!is_first)
                append(out, ",", 1);
            append(out, route->before, before_length);
            append(out, at, (size_t)(quote - at));
            append(out, route->after, after_length);
        }
        is_first = false;
        at = quote + 1;
    }
}

/* Answers -----------------------------------------------------------------------------------------------------------*/

static void begin_answer(struct connection *peer) {
    reserve(&peer->out, FIRST_BYTES);
    peer->out.used = HEAD_ROOM;
}

/* Put the head before the body that is in `out`. */
static void end_answer(struct connection *peer, int status) {
    char head[HEAD_ROOM], length[48] = "";
    if (status != 204)
        snprintf(length, sizeof length, "Content-Length: %zu\r\n", peer->out.used - HEAD_ROOM);
    int size = snprintf(head, sizeof head,
                        "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nX-Elastic-Product: Elasticsearch\r\n%s\r\n",
                        status, status < 300 ? "OK" : "Refused", length);
    peer->sent = HEAD_ROOM - (size_t)size;
    memcpy(peer->out.at + peer->sent, head, (size_t)size);
}

static void refuse(struct connection *peer, int status) {
    begin_answer(peer);
    append_text(&peer->out, "{}");
    end_answer(peer, status);
}

static uint64_t cpu_us(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (uint64_t)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000u +
           (uint64_t)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static void reset(const char *path) {
    const char *users = strstr(path, "users="), *delay = strstr(path, "delay_us=");
    uint64_t waiting = counted.waiting; /* answers to clients that were killed */
    free(counted.seen);
    memset(&counted, 0, sizeof counted);
    counted.waiting = waiting;
    counted.cpu_us = cpu_us();
    counted.expected = users ? strtoull(users + 6, NULL, 10) : 0;
    counted.delay_ns = delay ? strtoull(delay + 9, NULL, 10) * 1000 : 0;
    if (!(counted.seen = calloc(counted.expected / 64 + 1, sizeof *counted.seen)))
        die("reset");
}

static void append_number(struct buffer *out, const char *name, uint64_t number) {
    char text[96];
    snprintf(text, sizeof text, "%s\"%s\":%llu", out->at[out->used - 1] == '{' ? "" : ",", name,
             (unsigned long long)number);
    append_text(out, text);
}

static void tell(struct buffer *out) {
    append_text(out, "{");
    append_number(out, "users", counted.users);
    append_number(out, "distinct", counted.distinct);
    append_number(out, "strange", counted.strange);
    append_number(out, "requests", counted.requests);
    append_number(out, "body_bytes", counted.bytes);
    append_number(out, "first_ns", counted.first_ns);
    append_number(out, "last_ns", counted.last_ns);
    append_number(out, "most_waiting", counted.most_waiting);
    append_number(out, "cpu_us", cpu_us() - counted.cpu_us);
    append_text(out, "}");
}

/* True: the answer must wait for its moment. */
static bool answer(struct connection *peer, const char *method, char *path, const char *body, size_t length) {
    begin_answer(peer);
    if (!strncmp(path, "/-/", 3)) {
        if (!strncmp(path, "/-/reset", 8))
            reset(path);
        tell(&peer->out);
        end_answer(peer, 200);
        return false;
    }
    uint64_t now = now_ns();
    for (size_t i = 0; i < sizeof ROUTES / sizeof *ROUTES; i++) {
        const struct route *route = &ROUTES[i];
        if (strcmp(method, route->method) || strncmp(path, route->path, strlen(route->path)))
            continue;
        counted.first_ns = counted.first_ns ? counted.first_ns : now;
        counted.requests++;
        counted.bytes += length;
        append_text(&peer->out, route->head);
        if (route->key)
            take_users(route, body, body + length, &peer->out);
        else
            count_user(path + strlen(route->path), path + strlen(path));
        append_text(&peer->out, route->tail);
        end_answer(peer, route->status);
        counted.last_ns = now_ns();
        peer->due = now + counted.delay_ns;
        return counted.delay_ns > 0;
    }
    refuse(peer, 404);
    return false;
}

/* Connections -------------------------------------------------------------------------------------------------------*/

static void watch(struct connection *peer, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = peer};
    epoll_ctl(epoll, EPOLL_CTL_MOD, peer->fd, &event);
}

static void drop(struct connection *peer) {
    if (!peer->is_closed)
        close(peer->fd);
    peer->is_closed = true;
    if (peer->is_waiting) /* who takes it from the queue frees it */
        return;
    free(peer->in.at);
    free(peer->out.at);
    free(peer);
}

/* False: the connection is gone, or its buffer full: the rest goes when it is writable. */
static bool send_answer(struct connection *peer) {
    while (peer->sent < peer->out.used) {
        ssize_t count = send(peer->fd, peer->out.at + peer->sent, peer->out.used - peer->sent, MSG_NOSIGNAL);
        if (count < 0 && errno == EAGAIN) {
            watch(peer, EPOLLIN | EPOLLOUT);
            return false;
        }
        if (count < 0) {
            drop(peer);
            return false;
        }
        peer->sent += (size_t)count;
    }
    peer->out.used = 0;
    memmove(peer->in.at, peer->in.at + peer->request, peer->in.used - peer->request);
    peer->in.used -= peer->request;
    peer->is_continued = false;
    return true;
}

static const char *header(const char *head, const char *name) {
    size_t length = strlen(name);
    for (const char *line = strstr(head, "\r\n"); line; line = strstr(line + 2, "\r\n"))
        if (!strncasecmp(line + 2, name, length))
            return line + 2 + length;
    return NULL;
}

/* Answer the requests that are whole, one after the other. */
static void work(struct connection *peer) {
    while (!peer->out.used && peer->in.used) {
        char *end = memmem(peer->in.at, peer->in.used, "\r\n\r\n", 4);
        if (!end)
            return;
        char kept = end[2];
        end[2] = 0; /* the head as a string, up to its last line's end */
        const char *length_text = header(peer->in.at, "content-length:");
        bool is_chunked = header(peer->in.at, "transfer-encoding:") != NULL;
        bool is_expecting = header(peer->in.at, "expect:") != NULL;
        size_t head = (size_t)(end + 4 - peer->in.at), length = length_text ? strtoull(length_text, NULL, 10) : 0;
        end[2] = kept;
        peer->request = head + length;
        if (is_chunked) {
            peer->request = peer->in.used;
            refuse(peer, 411);
        } else if (peer->in.used < peer->request) {
            if (is_expecting && !peer->is_continued) {
                static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
                peer->is_continued = send(peer->fd, go_on, sizeof go_on - 1, MSG_NOSIGNAL) > 0;
            }
            reserve(&peer->in, peer->request);
            return;
        } else {
            char method[16] = "", path[512] = "";
            sscanf(peer->in.at, "%15s %511s", method, path);
            if (answer(peer, method, path, peer->in.at + head, length)) {
                peer->is_waiting = true;
                peer->next = NULL;
                if (queue_last)
                    queue_last->next = peer;
                else
                    queue_first = peer;
                queue_last = peer;
                if (++counted.waiting > counted.most_waiting)
                    counted.most_waiting = counted.waiting;
                return;
            }
        }
        if (!send_answer(peer))
            return;
    }
}

static void on_event(struct connection *peer, uint32_t events) {
    if (events & EPOLLOUT && peer->out.used && !peer->is_waiting) {
        if (!send_answer(peer))
            return;
        watch(peer, EPOLLIN);
    }
    bool is_dry = false;
    while (!is_dry) {
        reserve(&peer->in, peer->in.used + 1);
        size_t room = peer->in.room - peer->in.used;
        ssize_t count = recv(peer->fd, peer->in.at + peer->in.used, room, 0);
        if (count < 0 && errno == EAGAIN)
            break;
        if (count <= 0) {
            drop(peer);
            return;
        }
        peer->in.used += (size_t)count;
        is_dry = (size_t)count < room; /* most likely; epoll tells if more is there */
    }
    work(peer);
}

static void send_due(void) {
    uint64_t now = now_ns();
    while (queue_first && queue_first->due <= now) {
        struct connection *peer = queue_first;
        queue_first = peer->next;
        queue_last = queue_first ? queue_last : NULL;
        peer->is_waiting = false;
        counted.waiting--;
        if (peer->is_closed)
            drop(peer);
        else if (send_answer(peer))
            work(peer);
    }
}

static void welcome(int listening) {
    int fd, yes = 1;
    while ((fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        struct connection *peer = calloc(1, sizeof *peer);
        if (!peer)
            die("a connection");
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
        peer->fd = fd;
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = peer};
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    }
}

int main(void) {
    static char in_mark, listen_mark; /* what stands in an event for stdin, and for the socket that listens */
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int listening = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    if (listening < 0 || epoll < 0 || bind(listening, (struct sockaddr *)&address, size) || listen(listening, 1024) ||
        getsockname(listening, (struct sockaddr *)&address, &size))
        die("listen");
    struct epoll_event at_listening = {.events = EPOLLIN, .data.ptr = &listen_mark};
    struct epoll_event at_stdin = {.events = EPOLLIN | EPOLLHUP, .data.ptr = &in_mark};
    epoll_ctl(epoll, EPOLL_CTL_ADD, listening, &at_listening);
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, STDIN_FILENO, &at_stdin))
        die("stdin must be a pipe");
    reset("");
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        struct epoll_event events[EVENTS];
        struct timespec wait = {0}, *timeout = NULL;
        if (queue_first) {
            uint64_t now = now_ns(), left = queue_first->due > now ? queue_first->due - now : 0;
            wait.tv_sec = (time_t)(left / 1000000000u);
            wait.tv_nsec = (long)(left % 1000000000u);
            timeout = &wait;
        }
        int count = epoll_pwait2(epoll, events, EVENTS, timeout, NULL);
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr == &in_mark)
                return 0;
            if (events[i].data.ptr == &listen_mark)
                welcome(listening);
            else
                on_event(events[i].data.ptr, events[i].events);
        }
        send_due();
    }
}
