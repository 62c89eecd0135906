// What the theme, and Sphinx, leave out for those who use a keyboard or a screen reader: found by axe
// (tests/end_to_end/test_pages.py).
"use strict";

/** What can be scrolled can be reached, where there is something to scroll. */
function reach() {
    for (const box of document.querySelectorAll("pre, .table-wrapper")) {
        if (box.scrollWidth > box.clientWidth) {
            box.tabIndex = 0;
        } else {
            box.removeAttribute("tabindex");
        }
    }
}

document.addEventListener("DOMContentLoaded", () => {
    for (const caption of document.querySelectorAll(".caption[role=heading]")) {
        caption.setAttribute("aria-level", "2");
    }
    document.querySelector(".sidebar-drawer")?.setAttribute("aria-label", "All pages");
    document.querySelector(".toc-drawer")?.setAttribute("aria-label", "This page");
    // A column whose meaning is plain has no heading.
    for (const heading of document.querySelectorAll("th")) {
        if (!heading.textContent.trim()) {
            heading.replaceWith(document.createElement("td"));
        }
    }
    // The parameters of a signature are no list of terms.
    for (const list of document.querySelectorAll("dt.sig > dl")) {
        const parameters = document.createElement("div");
        parameters.className = "parameters";
        for (const each of list.children) {
            const parameter = document.createElement("div");
            parameter.append(...each.childNodes);
            parameters.append(parameter);
        }
        list.replaceWith(parameters);
    }
    if (!document.querySelector("h1")) {
        const title = document.createElement("h1");
        title.textContent = "Search";
        document.querySelector("#search-results")?.before(title);
    }
    reach();
    addEventListener("resize", reach);
});
