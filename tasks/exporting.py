"""The export to one drive, from the job's list to the drive's manifest and logs; and the acts of an export."""

import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from pathlib import Path
from threading import Semaphore
from typing import Final
from uuid import UUID

from sqlalchemy import update
from sqlmodel import col, select

from models.blob_facts import BlobFacts
from models.blob_lists import incomplete_list_name, select_blobs, write_blob_list
from models.copies import BlobReport, DriveCopy, renew_copy_lease, take_copy_lease
from models.copy_logs import BlobStatus, DispositionStatus, DriveStatus, error_entries, write_copy_log
from models.database import database_time, reading, writing
from models.drives import WITHOUT_ERRORS, Drive, drives_of, serial
from models.errors import DriveError, StoreError
from models.jobs import Job, LogLevel, read_job
from models.lifecycle import DRIVE_TO_COPY, Actor, JobType
from models.manifests import BLOCK_BYTES_MAX, ManifestWriter, split_blob_path
from tasks.acts import act
from tasks.blob_files import BlobFailedError
from tasks.blob_writing import Way
from tasks.containers import open_container
from tasks.copying import DriveCopying
from tasks.export_journal import MANIFEST, WORKING, ExportJournal, Written, discard_working_folder, told_of
from tasks.export_listing import Listing, read_selection
from tasks.export_reading import BlobReading, Order
from tasks.mounts import drives_in
from tasks.pulse import CopyCancelledError, CopyLimits, Pulse
from tasks.stores import BlobWriter, Container, ForbiddenError, NameRefusedError
