"""Deliberate mistakes: each a small change to the loader that breaks a promise, and the test that notices it.

`caught_by` are tests as pytest names them (without a parameter: any of its cases will do); the mistake must make each of
them fail. They are of the normal run, but where no test of it could notice: those are told by `is_soak`.
"""

from typing import NamedTuple


class Mutation(NamedTuple):
    """A mistake. `old` stands once in the file, and becomes `new`."""

    name: str
    file: str
    old: str
    new: str
    caught_by: tuple[str, ...]
    is_soak: bool = False


MUTATIONS = (
    # Nothing lost ---------------------------------------------------------------------------------------------------
    Mutation(
        "a split loses the odd user",
        "loader/settle.py",
        "cuts = ((0, middle), (middle, len(self.batch)))",
        "cuts = ((0, middle), (middle, 2 * middle))",
        ("tests/test_settle.py::test_a_refused_batch_is_split_until_the_culprit_stands_alone",),
    ),
    Mutation(
        "rejected rows vanish",
        "loader/dispatch.py",
        "Entry(settled=rows.settled, mark=rows.end,",
        "Entry(settled=(), mark=rows.end,",
        ("tests/test_dispatch.py::test_rows_never_sent_are_settled_with_the_rest",),
    ),
    Mutation(
        "a resume begins behind the first hole",
        "loader/span.py",
        "return self._lasts[0] + 1 if",
        "return self._lasts[0] + 2 if",
        ("tests/test_span.py::test_a_span_set_is_the_set_of_its_rows",),
    ),
    Mutation(
        "a resume goes on where the last run was, not at the first hole",
        "loader/span.py",
        "return self._lasts[0] + 1 if",
        "return self._lasts[-1] + 1 if",
        (
            "tests/test_resume.py::test_a_run_goes_on_before_the_first_row_that_is_not_settled",
            "tests/chaos/test_chaos.py::test_a_story",
        ),
    ),
    Mutation(
        "the last batches are dropped on SIGTERM",
        "loader/dispatch.py",
        "            return Entry(batch, outcomes)\n",
        "            return None if self._lane.stopping.is_set() else Entry(batch, outcomes)\n",
        ("tests/test_dispatch.py::test_a_stop_lets_the_wire_finish_and_sends_nothing_more",),
    ),
    Mutation(
        "whose fate is open is salvaged with the others",
        "loader/settle.py",
        "if at not in open_]",
        "if outcomes[at]]",
        ("tests/test_settle.py::test_who_is_settled_when_a_run_stops_is_salvaged",),
    ),
    Mutation(
        "merged rows keep the last row's attributes alone",
        "loader/batch.py",
        "return later if self._replace else",
        "return later if not self._replace else",
        ("tests/test_batch.py::test_rows_of_one_user_in_one_batch_are_merged",),
    ),
    # At least once, and never ahead of the API -------------------------------------------------------------------------
    Mutation(
        "an outcome is committed before the answer",
        "loader/dispatch.py",
        "            entry = await self._settled(batch)\n",
        "            from loader.outcome import Code, Outcome\n"
        "            await self._put(Entry(batch, [Outcome(Code.SUCCESS)] * len(batch))).over.wait()\n"
        "            await self._settled(batch)\n            continue\n",
        ("tests/chaos/test_chaos.py::test_a_story",),
    ),
    Mutation(
        "a place is free before the commit",
        "loader/dispatch.py",
        "                await self._put(entry).over.wait()\n",
        "                self._put(entry)\n",
        ("tests/test_dispatch.py::test_no_more_than_twice_the_concurrency_is_in_flight",),
    ),
    Mutation(
        "a checkpoint without fsync",
        "loader/checkpoint.py",
        "PRAGMA synchronous=FULL",
        "PRAGMA synchronous=OFF",
        ("tests/crash/test_power_loss.py::test_what_is_left_by_a_power_loss_is_gone_on_with",),
    ),
    Mutation(
        "a commit that fails is claimed",
        "loader/dispatch.py",
        "            self._lane.stop(error)\n            return False\n",
        "            self._lane.stop(error)\n            return True\n",
        ("tests/test_dispatch.py::test_a_commit_that_fails_stops_the_run_and_claims_nothing",),
    ),
    Mutation(
        "a changed export of the same size is the same",
        "loader/resume.py",
        'return "" if export.is_same_up_to(marks, mapping, start) else "its size is the same, its content is not"',
        'return ""',
        ("tests/test_resume.py::test_an_export_of_the_same_size_with_other_content_is_refused",),
    ),
    Mutation(
        "what a retry takes out is lost",
        "loader/checkpoint.py",
        'self._db.execute("INSERT INTO former SELECT * FROM outcome WHERE row IN (SELECT row FROM again)")',
        "pass",
        ("tests/test_checkpoint.py::test_a_reopened_load_lacks_what_is_worth_retrying",),
    ),
    Mutation(
        "what a retry has sent again has two outcomes",
        "loader/checkpoint.py",
        "renewed += ((row,) for row in entry.rows())",
        "pass",
        ("tests/test_checkpoint.py::test_a_reopened_load_lacks_what_is_worth_retrying",),
    ),
    Mutation(
        "a checkpoint is put aside before its port is taken",
        "loader/cli/run.py",
        "with lock(loaded.checkpoint_path), pages(loaded, dashboard) as on, begun(loaded, flags, note) as load:",
        "with lock(loaded.checkpoint_path), begun(loaded, flags, note) as load, pages(loaded, dashboard) as on:",
        ("tests/end_to_end/test_second_steps.py::test_a_port_that_is_taken_moves_no_checkpoint",),
    ),
    Mutation(
        "two runs hold one checkpoint",
        "loader/checkpoint.py",
        "fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)",
        ("tests/test_checkpoint.py::test_a_lock_keeps_others_out_until_its_holder_is_gone",),
    ),
    # Order per user ----------------------------------------------------------------------------------------------------
    Mutation(
        "two rows of a user overtake",
        "loader/batch.py",
        "            elif user in self._busy:\n",
        "            elif user in self._held:\n",
        ("tests/test_batch.py::test_a_row_of_a_user_in_flight_waits_for_its_release",),
    ),
    Mutation(
        "rows that were held back are given before the answer is durable",
        "loader/dispatch.py",
        "            entry = await self._settled(batch)\n",
        "            entry = await self._settled(batch)\n            self._batcher.release(batch)\n",
        ("tests/test_dispatch.py::test_no_row_of_a_user_is_overtaken",),
    ),
    # Never over the limit ----------------------------------------------------------------------------------------------
    Mutation(
        "a retry goes without paying",
        "loader/client.py",
        "                if tempo.toll:\n",
        "                if tempo.toll and lane._trouble_since is None:\n",
        ("tests/faults/test_storm.py",),
    ),
    Mutation(
        "what need not wait goes without paying",
        "loader/client.py",
        "            await tempo.toll.pay(users(what))\n            rate.went",
        "            rate.went",
        ("tests/test_client.py::test_the_rate_holds_in_every_window_and_is_used",),
    ),
    Mutation(
        "what need not wait goes although the lane is held",
        "loader/client.py",
        "            and lane.is_open(now)\n",
        "",
        ("tests/test_client.py::test_a_pause_does_not_end_in_a_burst",),
    ),
    Mutation(
        "a token call goes without paying",
        "loader/client.py",
        "        self._ask = pace(self._call, lane, tempo)\n",
        "        self._ask = self._call\n",
        ("tests/test_client.py::test_token_calls_pay_as_well",),
    ),
    Mutation(
        "a run begins with a burst",
        "loader/client.py",
        "await limiter.acquire(pace.burst)",
        "pass",
        (
            "tests/test_client.py::test_the_rate_holds_in_every_window_and_is_used",
            "tests/faults/test_quota.py::test_three_windows_and_a_resume",
        ),
    ),
    Mutation(
        "who has paid waits for the rate",
        "loader/client.py",
        "is_clear = lane.is_clear and rate.wait_s(lane.now()) <= 0",
        "is_clear = lane.is_clear\n                if rate.wait_s(lane.now()) > 0:\n"
        "                    await lane.sleep(rate.wait_s(lane.now()))",
        ("tests/test_client.py::test_a_rate_that_was_found_comes_before_the_quota",),
    ),
    Mutation(
        "Retry-After is ignored",
        "loader/settle.py",
        "seconds = retry_after_s(response.headers, self._wall()) if response else None",
        "seconds = None",
        ("tests/test_settle.py::test_retry_after_holds_the_whole_lane",),
    ),
    Mutation(
        "a retry holds its place on the wire",
        "loader/client.py",
        "            places.give_back()\n            places.resize",
        "            await anyio.sleep(1)\n            places.give_back()\n            places.resize",
        ("tests/test_client.py::test_no_more_than_concurrency_on_the_wire",),
    ),
    # One bad user costs one user ---------------------------------------------------------------------------------------
    Mutation(
        "a 429 costs an attempt",
        "loader/settle.py",
        "                await self._wait(part, response, reason)\n                return (part,)\n",
        "                await self._wait(part, response, reason)\n                part.failures += 1\n"
        "                if part.failures >= self._attempts:\n"
        "                    _fill(outcomes, part, Code.FAILED, reason, response)\n                    return ()\n"
        "                return (part,)\n",
        ("tests/test_settle.py::test_slowing_down_never_uses_up_attempts",),
    ),
    Mutation(
        "a refused batch is not split",
        "loader/settle.py",
        "                if not is_alone:\n                    self._traffic.halves()\n                    part.is_half = True\n"
        "                    return part.halves()\n                _fill",
        "                _fill",
        ("tests/test_settle.py::test_a_refused_batch_is_split_until_the_culprit_stands_alone",),
    ),
    Mutation(
        "a target that is down uses attempts up",
        "loader/settle.py",
        "        part.failures += is_alive\n",
        "        part.failures += 1\n",
        ("tests/test_settle.py::test_failures_of_an_outage_do_not_count_later",),
    ),
    # Answers are matched by user ----------------------------------------------------------------------------------------
    Mutation(
        "answers are matched by position",
        "loader/targets/calven.py",
        "        results = [by_user.get(user) for user in batch.users]\n",
        "        results = [*said, *[None] * len(batch)][: len(batch)]\n",
        ("tests/targets/test_contract.py", "tests/targets/test_calven.py"),
    ),
    Mutation(
        "an answer as long as the one before is taken for the same",
        "loader/echo.py",
        "        if (self._head + self._between.join(users) + self._tail).encode() != body:\n",
        "        if len((self._head + self._between.join(users) + self._tail).encode()) != len(body):\n",
        ("tests/test_echo.py::test_anything_else_has_to_be_decoded",),
    ),
    Mutation(
        "an answer is known by names that JSON writes otherwise",
        "loader/echo.py",
        "return self._result if len(names.translate(None, _ESCAPED)) == len(names) else None",
        "return self._result",
        ("tests/test_echo.py::test_a_name_that_json_writes_otherwise_stands_for_nobody_here",),
    ),
    Mutation(
        "an answer that can't be read is a success",
        "loader/targets/calven.py",
        "        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):\n            return Do.AGAIN\n"
        "        seen: dict",
        "        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):\n"
        "            return Answer([Result(Code.SUCCESS)] * len(batch))\n        seen: dict",
        ("tests/targets/test_contract.py",),
    ),
    Mutation(
        "who is left out is a success",
        "loader/settle.py",
        '_UNNAMED = Result(Code.NO_RESULT, "",',
        '_UNNAMED = Result(Code.SUCCESS, "",',
        ("tests/test_settle.py::test_left_out_in_every_attempt_is_no_result",),
    ),
    # Tokens and secrets ------------------------------------------------------------------------------------------------
    Mutation(
        "each who waits fetches a token",
        "loader/client.py",
        "            if (token := self.current) is None or self._is_due(token):  # nobody fetched it while we waited\n"
        "                token = self.current = await self._fetch()\n                self._is_accepted = False\n",
        "            token = self.current = await self._fetch()\n            self._is_accepted = False\n",
        ("tests/test_client.py",),
    ),
    Mutation(
        "a refused token is used for ever",
        "loader/client.py",
        "        self.current = None\n        self._after_refusal = True\n",
        "        self._after_refusal = True\n",
        ("tests/faults/test_token.py::test_tokens_revoked_under_32_requests",),
    ),
    Mutation(
        "a secret that the API repeats is kept",
        "loader/client.py",
        "if len(secret) >= SECRET_LENGTH and",
        "if len(secret) >= 1 << 20 and",
        (
            "tests/test_client.py::test_an_answer_that_repeats_our_secrets_is_masked",
            "tests/end_to_end/test_secrets.py::test_no_secret_in_anything_that_a_load_leaves_or_says",
        ),
    ),
    Mutation(
        "a secret that a refusal repeats in base64 is kept",
        "loader/tokens.py",
        ", *_in_base64(secret.encode())}",
        "}",
        ("tests/test_tokens.py::test_a_secret_is_found_in_every_disguise", "tests/end_to_end/test_secrets.py"),
    ),
    Mutation(
        "a secret that is quoted where an answer is not HTTP is kept",
        "loader/client.py",
        "            error.args = (self._hide(str(error), sent),)\n",
        "            pass\n",
        (
            "tests/test_client.py::test_nor_does_a_refusal_repeat_them_in_another_form_or_place",
            "tests/end_to_end/test_secrets.py::test_nor_where_an_answer_is_not_http_and_is_shown",
        ),
    ),
    Mutation(
        "a redirect's address is shown with the secret in it",
        "loader/client.py",
        "        return replace(response, headers=headers, body=body)\n",
        "        return replace(response, body=body)\n",
        ("tests/end_to_end/test_secrets.py::test_no_secret_in_anything_that_a_load_leaves_or_says",),
    ),
    Mutation(
        "an internal error shows the request with its headers",
        "loader/request.py",
        "    headers: Mapping[str, str] = field(default_factory=dict, repr=False)\n    users: int",
        "    headers: Mapping[str, str] = field(default_factory=dict)\n    users: int",
        ("tests/end_to_end/test_secrets.py::test_no_secret_in_anything_that_a_load_leaves_or_says",),
    ),
    Mutation(
        "a redirect is followed",
        "loader/transport.py",
        "allow_redirects=False",
        "allow_redirects=True",
        ("tests/test_transport.py::test_a_redirect_is_not_followed",),
    ),
    Mutation(
        "a certificate is not looked at",
        "loader/transport.py",
        "ssl=True if tls is None else tls",
        "ssl=False",
        ("tests/test_transport.py::test_a_certificate_that_nobody_vouches_for_is_refused",),
    ),
    Mutation(
        "an answer may be of any length",
        "loader/transport.py",
        "            if size > self._max_answer_bytes:\n",
        "            if size > 1 << 60:\n",
        ("tests/test_transport.py::test_an_answer_without_end_does_not_fill_the_memory",),
    ),
    Mutation(
        "anybody may read the checkpoint",
        "loader/checkpoint.py",
        "os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))",
        "os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))",
        ("tests/test_checkpoint.py::test_all_its_files_are_the_owners_alone",),
    ),
    Mutation(
        "anybody may read what happened in a crash",
        "loader/cli/endings.py",
        "os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600",
        "os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o644",
        ("tests/end_to_end/test_secrets.py::test_no_secret_in_anything_that_a_load_leaves_or_says",),
    ),
    Mutation(
        "anybody may read the results",
        "loader/cli/output.py",
        "os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600",
        "os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644",
        ("tests/end_to_end/test_secrets.py::test_no_secret_in_anything_that_a_load_leaves_or_says",),
    ),
    Mutation(
        "a formula is left as it is",
        "loader/results.py",
        "cell.startswith(_FORMULA)",
        'cell.startswith("=")',
        ("tests/test_results.py::test_no_cell_is_a_formula_where_that_is_asked_for",),
    ),
    # Stopping well -----------------------------------------------------------------------------------------------------
    Mutation(
        "a failure frees its place on the wire at once",
        "loader/client.py",
        "            concurrency.failed(sent_at, lane.now())\n            traffic.lost()\n            await linger(sent_at)\n",
        "            concurrency.failed(sent_at, lane.now())\n            traffic.lost()\n",
        (
            "tests/test_client.py::test_quick_failures_make_no_more_requests_a_second",
            "tests/faults/test_retry_budget.py::test_a_storm_gets_no_more_requests_a_second",
        ),
    ),
    Mutation(
        "so does an answer that something is wrong with the target",
        "loader/client.py",
        "        elif by_status(response) is Do.AGAIN:\n            await linger(sent_at)\n",
        "",
        ("tests/faults/test_retry_budget.py::test_a_storm_gets_no_more_requests_a_second",),
    ),
    Mutation(
        "a target that is down is asked by all",
        "loader/lane.py",
        "return self._failures >= _DOWN_AFTER",
        "return False",
        ("tests/test_lane.py::test_a_target_that_is_down_is_asked_now_and_then_and_gone_on_with_when_it_is_back",),
    ),
    Mutation(
        "it is asked for ever",
        "loader/lane.py",
        "elif (lasted := self.now() - self._trouble_since) >= self._give_up_s:",
        "elif (lasted := self.now() - self._trouble_since) >= 1e9:",
        ("tests/faults/test_storm.py::test_an_outage_longer_than_give_up_s_stops_the_run",),
    ),
    Mutation(
        "each half of a batch that fails gets all attempts",
        "loader/settle.py",
        "half.tries = self._attempts - 1 if len(half.batch) > 1 else 0",
        "half.tries = 0",
        ("tests/test_settle.py::test_the_culprit_alone_fails_when_attempts_are_used_up",),
    ),
    Mutation(
        "two processes need not have cut the same units",
        "loader/refresh/scan.py",
        "        if other != seen:",
        "        if other.rows != seen.rows:",
        ("tests/refresh/test_compare.py::test_two_processes_that_cut_units_elsewhere_are_told",),
    ),
    Mutation(
        "nobody does what a killed worker had to do",
        "loader/refresh/scan.py",
        "other, _ = _put_aside(export, mapping, digester, sets, own, _unmarked(), _unwatched, left)",
        "other = seen",
        ("tests/refresh/test_compare.py::test_two_processes_find_what_one_finds",),
    ),
    Mutation(
        "a trial's state takes the place of the real target's",
        "loader/refresh/state.py",
        "            if found.about.is_of(identity):",
        "            if found.about:",
        ("tests/refresh/test_night.py::test_each_target_has_a_state_of_its_own",),
    ),
    Mutation(
        "behind another mapping half an export is sent",
        "loader/refresh/night.py",
        'return why, "keys" if has_same_keys else "nothing"',
        'return why, "nothing"',
        ("tests/refresh/test_night.py::test_with_another_mapping_it_is_still_known_who_is_gone",),
    ),
    Mutation(
        "some units are nobody's",
        "loader/refresh/scan.py",
        'os.pwrite(handle, (number + 1).to_bytes(8, "little"), 0)',
        'os.pwrite(handle, (number + 2).to_bytes(8, "little"), 0)',
        ("tests/refresh/test_compare.py::test_a_turn_is_one_process_s_alone",),
    ),
    # Speed -------------------------------------------------------------------------------------------------------------
    Mutation(
        "users are looked up one by one",
        "loader/batch.py",
        "if not self._busy.isdisjoint(users):",
        "if any(user in self._busy for user in users):",
        ("tests/test_speed.py::test_no_loop_over_users_slips_in",),
    ),
    Mutation(
        "rows are measured one by one",
        "loader/mapping/jsonlines.py",
        "read.odd.update(np.flatnonzero(too_long | (np.diff(firsts) == 0)).tolist())",
        "read.odd.update(at for at in range(rows) if too_long[at] or firsts[at] == firsts[at + 1])",
        ("tests/test_speed.py::test_no_loop_over_users_slips_in",),
    ),
    Mutation(
        "each batch waits for the disk alone",
        "loader/dispatch.py",
        "return group.batches >= min(self._places // 2, self._in_flight)",
        "return group.batches >= 1",
        ("tests/test_speed.py::test_nothing_is_sent_or_kept_more_often_than_it_must_be",),
    ),
    Mutation(
        "blocks that are done with are kept",
        "loader/batch.py",
        "            self._runs.append(_Run(rows.numbers, rows.users, records))\n",
        "            self._runs.append(_Run(rows.numbers, rows.users, records))\n"
        '            self.kept = [*getattr(self, "kept", []), records]\n',
        ("tests/test_speed.py::test_a_load_holds_no_more_of_a_longer_export",),
    ),
    # In other programs -----------------------------------------------------------------------------------------------
    Mutation(
        "a cancelled load leaves what is on the wire",
        "loader/library.py",
        "        gently()\n",
        "        gently()\n        at_once()\n",
        (
            "tests/test_library.py::test_cancelled_once_nothing_is_sent_twice",
            "tests/test_library.py::test_a_cancelled_load_is_gone_on_with",
        ),
    ),
    Mutation(
        "a load may be run by two",
        "loader/library.py",
        "self._held.enter_context(lock(settings.checkpoint_path))",
        "settings.checkpoint_path.touch()",
        ("tests/test_library.py::test_a_load_that_is_held_is_nobody_elses",),
    ),
    Mutation(
        "objects are cut by their size, whatever they were before",
        "loader/export/table.py",
        "        while end and end <= behind:",
        "        while False:",
        (
            "tests/export/test_table.py::test_objects_that_have_changed_in_size_are_seen_before_a_row_is_handed_out",
            "tests/test_library.py::test_another_export_in_memory_is_refused",
        ),
    ),
)
