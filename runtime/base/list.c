/* list.c: an intrusive ring. An empty head points at itself; a node that is in no list has NULL for its links. */
#include "base.h"

void td_list_init(td_list *head) {
    head->next = head->prev = head;
}

/* insert puts node between two neighbours. */
static void insert(td_list *before, td_list *node, td_list *after) {
    node->prev = before;
    node->next = after;
    before->next = node;
    after->prev = node;
}

void td_list_push(td_list *head, td_list *node) {
    insert(head->prev, node, head);
}

void td_list_unshift(td_list *head, td_list *node) {
    insert(head, node, head->next);
}

void td_list_remove(td_list *node) {
    if (!node->next) return;
    node->prev->next = node->next;
    node->next->prev = node->prev;
    node->next = node->prev = NULL;
}

td_list *td_list_shift(td_list *head) {
    if (td_list_empty(head)) return NULL;
    td_list *first = head->next;
    td_list_remove(first);
    return first;
}

bool td_list_empty(const td_list *head) {
    return head->next == head;
}
